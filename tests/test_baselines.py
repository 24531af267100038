"""What a run is compared with, and which comparisons count, on items written by hand."""

from dataclasses import replace
from io import StringIO

import pytest
from item_records import accuracies, write
from rich.console import Console

from aim_exp.errors import AimError
from aim_exp.report.compare.baselines import find_pairs, parse_against, parse_names
from aim_exp.report.compare.comparability import doubts
from aim_exp.report.compare.comparison import Verdict, compare_runs
from aim_exp.report.compare.terminal import print_comparison
from aim_exp.report.notes import notes
from aim_exp.report.results import collect
from aim_exp.statistics import mcnemar


@pytest.mark.parametrize("repetitions", [0, 1, 3])
def test_the_same_comparison_counts_once(repetitions, tmp_path):
    """One method by two names, or with seeds that it does not draw from: the answers tell."""
    write(tmp_path / "0", None, accuracies(0.5), 0.5)
    write(tmp_path / "1", 0.4, accuracies(0.6), 0.6)
    write(tmp_path / "2", 0.6, accuracies(0.9), 0.9)
    for number in range(3, 3 + repetitions):
        write(tmp_path / str(number), number / 10, accuracies(0.9), 0.9)
    comparison = compare_runs(collect(tmp_path))
    assert len(comparison.rows) == 2 + repetitions
    assert comparison.families == {"averages": 2, "gains": 2, "scores on benchmarks": 2}
    _, strong, *others = comparison.rows
    assert strong.average.adjusted_p == pytest.approx(2 * strong.average.test.p)
    assert {row.average.adjusted_p for row in others} <= {strong.average.adjusted_p}
    folders = ", ".join(str(number) for number in range(3, 3 + repetitions))
    said = ["the same comparison as an earlier one, answer by answer, counted once: "]
    assert comparison.omissions() == [line + folders for line in said * bool(repetitions)]
    assert comparison.summary().endswith(", of 2")


def test_the_same_answers_need_no_test(tmp_path):
    write(tmp_path / "0", None, accuracies(0.5), 0.5)
    write(tmp_path / "1", 0.9, accuracies(0.5), 0.5)
    write(tmp_path / "2", 0.6, accuracies(0.9), 0.9)
    comparison = compare_runs(collect(tmp_path))
    same, other = comparison.rows
    assert same.average.verdict == same.gain.verdict == Verdict.UNTESTED
    assert comparison.families == {"averages": 1, "gains": 1, "scores on benchmarks": 1}
    assert other.average.adjusted_p == other.average.test.p
    assert comparison.omissions() == ["the same answers as the plain merge, nothing to test: 1"]
    assert comparison.sentence(same) == (
        "ties omega=0.9 is level with its plain merge: it gives the same answers"
    )


def test_a_reference_may_be_scored_in_another_run(tmp_path):
    """`joint` beside run 0 only; the other population has none."""
    joint = {"reference_scores": {"joint": {"x": 0.5}}}
    items = {"merged": {"x": str(tmp_path / "0/merged.jsonl")},
             "joint": {"x": str(tmp_path / "0/a.jsonl")}}  # fmt: skip
    write(tmp_path / "0", None, accuracies(0.6), 0.6, items=items, **joint)
    write(tmp_path / "1", 0.4, accuracies(0.9), 0.9)
    write(tmp_path / "2", 0.4, accuracies(0.9), 0.9, population_scores={"base": {"x": 0.1}})
    results = collect(tmp_path)
    comparison = compare_runs(results, parse_against(results, ["joint"]))
    assert [(row.job.folder, comparison.baseline_label(row)) for row in comparison.rows] == [
        ("0", "joint [1]"), ("1", "joint [1]")
    ]  # fmt: skip
    for row, share in zip(comparison.rows, (0.6, 0.9), strict=True):
        assert row.scores["x"].test == mcnemar(accuracies(0.5), accuracies(share))
    assert comparison.omissions() == ["no joint for: 2"]


def test_a_row_tells_its_seed(tmp_path):
    """Of a population that is drawn again, base is told apart too."""
    for number, (omega, seed) in enumerate([(None, 0), (0.4, 0), (None, 1), (0.4, 1)]):
        population = {"name": "p", "seed": seed, "merged": ["a"], "models": {"base": f"b{seed}"}}
        scores = {"base": {"x": 0.3 + seed / 10}, "a": {"x": 0.5}}
        write(tmp_path / str(number), omega, accuracies(number / 10), number / 10,
              population=population, population_scores=scores, seed=seed)  # fmt: skip
    results = collect(tmp_path)

    def labels(*against):
        comparison = compare_runs(results, parse_against(results, against))
        return [(comparison.label(r), comparison.baseline_label(r)) for r in comparison.rows]

    assert labels() == [
        (f"ties omega=0.4 seed={s} population.seed={s}",
         f"ties omega=null seed={s} population.seed={s}")
        for s in (0, 1)
    ]  # fmt: skip
    assert [baseline for _, baseline in labels("base")] == [
        f"base population.seed={seed}" for seed in (0, 0, 1, 1)
    ]


def test_a_run_may_be_called_like_a_setting(tmp_path):
    """Hydra names folders so where it is asked to: `hydra.sweep.subdir=${...override_dirname}`."""
    write(tmp_path / "method=ties,omega=null", None, accuracies(0.5), 0.5)
    write(tmp_path / "method=ties,omega=0.4", 0.4, accuracies(0.6), 0.6)
    write(tmp_path / "base", 0.6, accuracies(0.7), 0.7)
    results = collect(tmp_path)

    def baselines(against):
        return {
            twin.name for _, twin in find_pairs(results, parse_against(results, [against])).pairs
        }

    assert baselines("method=ties,omega=0.4") == {"method=ties,omega=0.4"}
    assert baselines("omega=null") == {"method=ties,omega=null"}
    base = parse_against(results, ["base"])
    assert [each.is_merge for each in base.candidates(results)] == [False], "a member comes first"


def test_a_run_by_the_label_that_the_tables_show(tmp_path):
    runs = [("ties", None, 0), ("ties", 0.2, 0), ("ties", 0.2, 1), ("linear", 0.2, 0)]
    for number, (method, omega, seed) in enumerate(runs):
        share = 0.5 + number / 10
        write(tmp_path / str(number), omega, accuracies(share), share, method=method, seed=seed)
    results = collect(tmp_path)

    def baseline(against):
        (model,) = parse_against(results, [against]).candidates(results)
        return model.job.name

    assert [baseline(results.label(job)) for job in results.jobs] == ["0", "1", "2", "3"]
    assert baseline("linear omega=0.2") == "3", "as in a table of means over seeds"
    refusals = {
        "ties omega=0.2": "ties omega=0.2: 2 runs have this label; name one: 1, 2",
        "Base": "Base: no such model; did you mean base?; there are base, a, the runs 0, 1, 2, 3, "
        "by number or label (ties omega=null seed=0, ties omega=0.2 seed=0), and twins by "
        "SETTING=VALUE, as in omega=null",
        "ties omega=0.3 seed=0": "ties omega=0.3 seed=0: no such model; did you mean ties omega=",
        "omeg=null": "omeg: the runs have no such setting; did you mean omega?; those that vary",
    }
    for against, words in refusals.items():
        with pytest.raises(AimError) as refused:
            parse_against(results, [against])
        assert str(refused.value).startswith(f"--against {words}")
    for number in range(4, 8):
        write(tmp_path / str(number), number / 10, accuracies(0.5), 0.5)
    with pytest.raises(AimError, match="the runs 0 to 7, by number or label"):
        parse_against(collect(tmp_path), ["nothing"])


def test_a_best_run_that_does_not_hold_is_warned_of(tmp_path):
    """One would quote it."""
    write(tmp_path / "0", None, accuracies(0.5), 0.5)
    write(tmp_path / "1", 0.4, accuracies(0.55), 0.55)
    console = Console(file=StringIO(), width=120)
    comparison = compare_runs(collect(tmp_path))
    print_comparison(console, comparison)
    *_, warning = console.file.getvalue().splitlines()
    sentence = comparison.sentence(comparison.rows[0])
    assert warning == f"warning: no claim holds for the best: {sentence}"
    assert "not told from noise" in warning


def test_a_table_too_long_for_any_claim_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("aim_exp.statistics.paired.RESAMPLES", 30)
    monkeypatch.setattr("aim_exp.statistics.paired.MOST_SWAPS", 30)
    for number, omega in enumerate((None, 0.2, 0.4)):
        write(tmp_path / str(number), omega, accuracies(0.1 + 0.4 * number), 0.1 + 0.4 * number)
    lines = compare_runs(collect(tmp_path)).omissions()
    assert [line.split(":")[0] for line in lines] == [
        f"no randomisation test can hold among 2 {kind}"
        for kind in ("averages", "gains", "scores on benchmarks")
    ]


@pytest.mark.parametrize(
    ("folder", "changed", "listed"),
    [
        ("b/0", {}, ["a/0", "a/1"]),
        ("b/0", {"timings": {"total": 5.0}, "created": "later"}, ["a/0", "a/1"]),
        ("a/2", {}, ["a/0", "a/1", "a/2"]),
        ("b/0", {"seed": 1}, ["a/0", "a/1", "b/0"]),
        ("b/0", {"scores": {"x": 0.8}}, ["a/0", "a/1", "b/0"]),
        ("b/0", {"population_scores": {"base": {"x": 0.1}}}, ["a/0", "a/1", "b/0"]),
        ("b/0", {"keys": {"weights": {"merged": "other"}}}, ["a/0", "a/1", "b/0"]),
        ("b/0", {"status": "failed"}, ["a/0", "a/1", "b/0"]),
    ],
    ids=["joined", "later", "one sweep", "settings", "scores", "members", "model", "failed"],
)
def test_a_run_of_two_joined_sweeps_is_listed_once(folder, changed, listed, tmp_path):
    write(tmp_path / "a" / "0", None, accuracies(0.5), 0.5)
    once = write(tmp_path / "a" / "1", 0.4, accuracies(0.9), 0.9, timings={"total": 2.0})
    (tmp_path / folder).mkdir(parents=True)
    replace(once, **changed).write(tmp_path / folder)
    results = collect(tmp_path)
    assert [job.folder for job in results.jobs] == listed
    repeated = len(listed) == 2
    assert [job.folder for run in results.repeated for job in run.repeats] == [folder] * repeated
    assert any(note.endswith("is listed once: a/1 = b/0.") for note in notes(results)) is repeated
    if repeated:
        taken = 2.0 + changed.get("timings", once.timings)["total"]
        assert [job.seconds_in_all for job in results.repeated] == [taken]


def test_twins_share_all_that_both_have(tmp_path):
    aim = {"statistic": "mean_abs", "scaling": "identity"}
    runs = [
        ("ties", None, {"density": 0.2}, {}),
        ("ties", 0.4, {"density": 0.2}, aim),
        ("ties", 0.4, {"density": 0.5}, aim),
        ("ties", 0.4, {"density": 0.2}, {**aim, "scaling": "uniform"}),
        ("linear", 0.4, {"weight": 1}, aim),
    ]
    for number, (method, omega, settings, own) in enumerate(runs):
        write(
            tmp_path / str(number), omega, accuracies(number / 10), number / 10,
            method=method, method_settings=settings, aim=own,
        )  # fmt: skip
    results = collect(tmp_path)

    def pairs(*against):
        found = find_pairs(results, parse_against(results, against))
        return [(job.folder, twin.name) for job, twin in found.pairs]

    assert pairs("omega=null") == [("1", "0"), ("3", "0")]
    assert pairs("scaling=uniform") == [("1", "3")]
    assert pairs("method=ties", "density=0.20") == [("2", "1"), ("4", "1")]
    assert pairs("density=0.5") == [("1", "2")]
    assert parse_names(results, "--by", ["density", "method.density"]) == ("method.density",) * 2


def test_other_models_are_no_twins(tmp_path):
    write(tmp_path / "0", None, accuracies(0.55), 0.55)
    other = {"name": "p", "merged": ["a"], "models": {"base": "b", "a": "another"}}
    write(tmp_path / "1", 0.4, accuracies(0.6), 0.6, population=other)
    results = collect(tmp_path)
    assert compare_runs(results) is None
    assert doubts(results) == ["population p: not the same weights everywhere for a"]
