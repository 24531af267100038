"""Merges against their baselines, on items written by hand: what is tested, paired, counted."""

import gzip
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import pytest
from records import accuracies, record, write_all

from aim_exp.errors import AimError
from aim_exp.evaluate.tasks.paper.ifeval import mean_of_four
from aim_exp.pareto import hypervolume_gain
from aim_exp.report.baselines import parse_names
from aim_exp.report.choices import choices
from aim_exp.report.csv_files import write_csvs
from aim_exp.report.differences import Difference, Differences, Verdict, differences
from aim_exp.report.estimates import GAIN
from aim_exp.report.frames import items
from aim_exp.report.load import load
from aim_exp.report.paired import FOLDER
from aim_exp.report.rows import Report, make_report
from aim_exp.statistics import PairedTest, holm, mcnemar
from aim_exp.store.run_record import RunRecord

ONE = "benchmarks.tasks={x: {task: t, metric: 'm,flexible'}}"
"""A suite of one benchmark."""


def right(share: float, items: int = 40) -> list[float]:
    return [float(number < round(share * items)) for number in range(items)]


MEMBERS = {"base": [right(0.3)], "a": [right(0.5)]}


def run(omega: float | None, answers: Sequence[float], *overrides: str, **more: Any) -> RunRecord:
    omega_text = f"omega={'null' if omega is None else omega}"
    own = {"members": MEMBERS, **more}
    return record(ONE, omega_text, *overrides, scores=[answers], **own)


def report(directory: Path, *records: RunRecord) -> Report:
    return make_report(load(write_all(directory, *records)))


def plain(made: Report) -> Differences:
    """Against the plain merge."""
    first, second = differences(made)
    assert (first.title, second.title) == ("the plain merge", "base")
    return first


def rewrite(folder: Path, lines: Sequence[dict[str, Any]], score: float) -> None:
    """Give the merge other items, and its score."""
    file = folder / "items" / "x.jsonl.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    content = json.loads((folder / "result.json").read_text())
    content["models"][-1]["scores"]["x"]["value"] = score
    (folder / "result.json").write_text(json.dumps(content))


def item(task: str, number: int, value: Any, chosen_filter: str = "flexible") -> dict[str, Any]:
    return {
        "task": task, "doc_id": number, "filter": chosen_filter, "prompt": "?", "target": number,
        "choices": None, "text": "!", "filtered": "!", "metrics": {"m": value},
    }  # fmt: skip


# What the numbers are


def test_every_number_is_that_of_the_items(tmp_path: Path) -> None:
    """Six benchmarks, McNemar's test by hand, Holm over each kind by itself."""
    members = {"base": [accuracies(0.3, 60, i) for i in range(6)],
               "a": [accuracies(0.5, 60, 9 + i) for i in range(6)]}  # fmt: skip
    rows = [[accuracies(0.6 + shift, 60, 20 + i) for i in range(6)] for shift in (0.0, 0.1, 0.3)]
    omegas = ("omega=null", "omega=0.4", "omega=0.2")
    records = [record(o, scores=row, members=members) for o, row in zip(omegas, rows, strict=True)]
    compared = plain(report(tmp_path, *records))
    names = [(contrast.job.name, contrast.against) for contrast in compared.contrasts]
    assert names == [("1", "ties omega=null"), ("2", "ties omega=null")]
    for contrast, after, made in zip(compared.contrasts, rows[1:], records[1:], strict=True):
        assert contrast.reasons == {}
        names = list(made.benchmarks)
        assert list(contrast.differences) == ["average", GAIN, *names]
        for name, old, new in zip(names, rows[0], after, strict=True):
            assert contrast.differences[name].test == mcnemar(old, new)
        means = [[fmean(answers) for answers in model] for model in (rows[0], after)]
        population = [[fmean(answers) for answers in row] for row in members.values()]
        gains = [hypervolume_gain(point, population) for point in means]
        assert contrast.average.value == pytest.approx(fmean(means[1]) - fmean(means[0]))
        assert contrast.differences[GAIN].value == pytest.approx(gains[1] - gains[0])
        for quantity in ("average", GAIN):
            test = contrast.differences[quantity].test
            assert test
            assert test.difference == pytest.approx(contrast.differences[quantity].value)
            assert test.low < test.difference < test.high
    for family in (["average"], [GAIN], names):
        each = [c.differences[quantity] for c in compared.contrasts for quantity in family]
        assert [d.adjusted_p for d in each] == holm([d.test.p for d in each if d.test])


@pytest.mark.parametrize("scale", ["direction: min", "scale: [1, 10]", "scale: [7.5, 2.5]"])
def test_items_are_on_the_scale_of_the_score(scale: str, tmp_path: Path) -> None:
    """A metric that is minimised, or not in [0, 1]: tested as the accuracy it stands for."""
    before, after = accuracies(0.4, 40, 1), accuracies(0.7, 40, 2)
    ends = ONE.replace("'m,flexible'", f"'m,flexible', {scale}")
    pair = [
        record(ends, f"omega={omega}", scores=[answers], members=MEMBERS)
        for omega, answers in (("null", before), ("0.4", after))
    ]
    made = report(tmp_path, *pair)
    (contrast,) = plain(made).contrasts
    assert contrast.reasons == {}
    assert contrast.differences["x"].test == mcnemar(before, after)
    frame = items(tmp_path)
    own = frame[(frame["role"] == "merged") & (frame["job"] == "1")]
    assert own["value"].tolist() == pytest.approx(after)


def test_a_claim_that_holds_and_one_that_does_not(tmp_path: Path) -> None:
    compared = plain(report(tmp_path, run(None, right(0.5)), run(0.4, right(0.55)),
                            run(0.6, right(0.9))))  # fmt: skip
    verdicts = [contrast.average.verdict for contrast in compared.contrasts]
    assert verdicts == [Verdict.NOISE, Verdict.ABOVE]
    weak, strong = map(compared.sentence, compared.contrasts)
    assert re.fullmatch(
        r"ties omega=0.4 is 5.0 points above its plain merge; "
        r"95 % interval 0.0 to \+12.5: not told from noise",
        weak,
    )
    assert strong.endswith(": holds")
    assert compared.summary() == "average above in 1, not told from noise in 1, of 2"


def test_one_that_would_hold_alone_says_among_how_many_it_does_not(tmp_path: Path) -> None:
    runs = [run(None, right(0.5))]
    for number in range(1, 8):
        answers = [*right(0.5)[:20], *np.roll(right(0.3, 20), number).tolist()]
        runs.append(run(number / 10, answers))
    compared = plain(report(tmp_path, *runs))
    assert {c.average.test and c.average.test.p < 0.05 for c in compared.contrasts} == {True}
    sentence = compared.sentence(compared.contrasts[0])
    assert sentence.endswith("not told from noise among 7 comparisons")


def test_a_claim_needs_the_interval_too() -> None:
    def verdict(low: float, high: float) -> Verdict:
        return Difference("x", 0.2, PairedTest(0.2, low, high, 1e-4), adjusted_p=1e-3).verdict

    assert verdict(0.1, 0.3) == Verdict.ABOVE
    assert verdict(0.0, 0.3) == verdict(-0.1, 0.3) == Verdict.NOISE
    assert verdict(0.0004, 0.3) == Verdict.NOISE, "0.0, as printed"


def instructions(seed: int) -> list[dict[str, object]]:
    """IFEval's four metrics per prompt; how many instructions a prompt has is the same for all."""
    numbers = np.random.default_rng(0).integers(1, 4, 30)
    rng = np.random.default_rng(seed)
    return [
        {
            "prompt_level_strict_acc": bool(rng.random() < 0.4),
            "prompt_level_loose_acc": bool(rng.random() < 0.5),
            "inst_level_strict_acc": (rng.random(number) < 0.5).tolist(),
            "inst_level_loose_acc": (rng.random(number) < 0.6).tolist(),
        }
        for number in numbers
    ]


def test_the_mean_of_ifevals_four_metrics_is_bootstrapped(tmp_path: Path) -> None:
    write_all(tmp_path, run(None, right(0.5)), run(0.4, right(0.6)))
    for number in range(2):
        values = instructions(number)
        lines = [item("t", i, value) for i, value in enumerate(values)]
        rewrite(tmp_path / str(number), lines, mean_of_four(values))
    made = make_report(load(tmp_path))
    (contrast,) = plain(made).contrasts
    test, own = contrast.differences["x"].test, contrast.average.test
    assert test
    assert own
    assert test.low < contrast.differences["x"].value < test.high
    assert (own.low, own.high, own.p) == pytest.approx((test.low, test.high, test.p), abs=0.02)
    assert choices(made).made[0].candidates == 2


@pytest.mark.parametrize("weighted", [True, False], ids=["by size", "equal"])
def test_groups_of_tasks_count_as_the_harness_counted_them(weighted: bool, tmp_path: Path) -> None:
    write_all(tmp_path, run(None, right(0.5)), run(0.4, right(0.6)))
    tasks = [{"u": right(u, 30), "v": right(v, 10)} for u, v in ((0.5, 0.5), (0.6, 0.9))]
    for number, own in enumerate(tasks):
        means = {name: fmean(answers) for name, answers in own.items()}
        score = 0.75 * means["u"] + 0.25 * means["v"] if weighted else fmean(means.values())
        lines = [item(task, i, each) for task, all_ in own.items() for i, each in enumerate(all_)]
        lines += [item(task, 0, 1.0, "strict") for task in own]
        rewrite(tmp_path / str(number), lines, score)
    (contrast,) = plain(make_report(load(tmp_path))).contrasts
    test = contrast.differences["x"].test
    assert test
    assert test.difference == pytest.approx(0.175 if weighted else 0.25)
    pooled = mcnemar(*(own["u"] + own["v"] for own in tasks))
    assert (test == pooled) is weighted


# What cannot be tested


def test_a_score_that_is_no_mean_of_its_items_is_left_out_and_says_so(tmp_path: Path) -> None:
    write_all(tmp_path, run(None, right(0.5)), run(0.4, right(0.6)))
    rewrite(tmp_path / "0", [item("t", i, each) for i, each in enumerate(right(0.5))], 0.123)
    compared = plain(make_report(load(tmp_path)))
    (contrast,) = compared.contrasts
    assert contrast.average.value == pytest.approx(0.477)
    assert contrast.average.verdict == Verdict.UNTESTED
    assert compared.omissions() == ["not tested: the score is no mean over items (x)"]


@pytest.mark.parametrize("gone", ["merged", "a"])
@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_items_that_cannot_be_read_are_one_line(gone: str, how: str, tmp_path: Path) -> None:
    records = [run(None, right(0.5)), run(0.4, right(0.9))]
    write_all(tmp_path, *records)
    (model,) = [model for model in records[1].models if model.name == gone]
    file = tmp_path / "1" / model.scores["x"].items
    content = file.read_bytes()
    file.write_bytes(content[:40]) if how == "cut off" else file.unlink()
    compared = plain(make_report(load(tmp_path)))
    what = "x" if gone == "merged" else GAIN
    why = "are gone" if how == "gone" else "cannot be read"
    assert compared.omissions() == [f"not tested: the results by item {why} ({what})"]
    (contrast,) = compared.contrasts
    assert contrast.differences[GAIN].verdict == Verdict.UNTESTED
    assert (contrast.average.verdict == Verdict.UNTESTED) is (gone == "merged")


def test_other_items_are_not_paired(tmp_path: Path) -> None:
    compared = plain(report(tmp_path, run(None, right(0.5, 40)), run(0.4, right(0.5, 20))))
    assert compared.omissions() == ["not tested: not the same items (x)"]


# What counts


@pytest.mark.parametrize("repetitions", [0, 1, 3])
def test_the_same_comparison_counts_once(repetitions: int, tmp_path: Path) -> None:
    """One method by two names: the answers tell."""
    runs = [run(None, right(0.5)), run(0.4, right(0.6)), run(0.6, right(0.9))]
    runs += [run(number / 10, right(0.9)) for number in range(7, 7 + repetitions)]
    compared = plain(report(tmp_path, *runs))
    assert len(compared.contrasts) == 2 + repetitions
    assert compared.families == {"averages": 2, "gains": 2, "scores on benchmarks": 2}
    _, strong, *others = compared.contrasts
    assert strong.average.test
    assert strong.average.adjusted_p == pytest.approx(2 * strong.average.test.p)
    assert {other.average.adjusted_p for other in others} <= {strong.average.adjusted_p}
    jobs = ", ".join(str(number) for number in range(3, 3 + repetitions))
    said = ["the same comparison as an earlier one, answer by answer, counted once: "]
    assert compared.omissions() == [line + jobs for line in said * bool(repetitions)]
    assert compared.summary().endswith(", of 2")


def test_the_same_answers_need_no_test(tmp_path: Path) -> None:
    compared = plain(report(tmp_path, run(None, right(0.5)), run(0.9, right(0.5)),
                            run(0.6, right(0.9))))  # fmt: skip
    same, other = compared.contrasts
    verdicts = [difference.verdict for difference in same.differences.values()]
    assert verdicts == [Verdict.UNTESTED] * 3
    assert compared.families == {"averages": 1, "gains": 1, "scores on benchmarks": 1}
    assert other.average.test
    assert other.average.adjusted_p == other.average.test.p
    assert compared.omissions() == ["the same answers as the plain merge, nothing to test: 1"]
    sentence = "ties omega=0.9 is level with its plain merge: it gives the same answers"
    assert compared.sentence(same) == sentence


def test_a_run_twice_is_compared_once(tmp_path: Path) -> None:
    twice = run(0.4, right(0.9))
    for sweep in ("a", "b"):
        write_all(tmp_path / sweep, run(None, right(0.5)), twice)
    made = make_report(load(tmp_path))
    assert [row.titles for row in made.merges] == ["a/0, b/0", "a/1, b/1"]
    assert [contrast.job.title for contrast in plain(made).contrasts] == ["a/1"]


def test_a_table_too_long_for_any_claim_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aim_exp.statistics.paired.RESAMPLES", 30)
    monkeypatch.setattr("aim_exp.statistics.paired.MOST_SWAPS", 30)
    runs = [run(omega, right(0.1 + 0.4 * i)) for i, omega in enumerate((None, 0.2, 0.4))]
    lines = plain(report(tmp_path, *runs)).omissions()
    assert [line.split(":")[0] for line in lines] == [
        f"no randomisation test can hold among 2 {kind}"
        for kind in ("averages", "gains", "scores on benchmarks")
    ]


# Baselines


def pairs(made: Report, *against: str) -> list[tuple[str, str]]:
    (compared,) = differences(made, against)
    return [(contrast.label, contrast.against) for contrast in compared.contrasts]


def test_twins_share_all_that_both_depend_on(tmp_path: Path) -> None:
    runs = [
        run(None, right(0.1)),
        run(0.4, right(0.2)),
        run(0.4, right(0.3), "method.density=0.5"),
        run(0.4, right(0.4), "aim.scaling=uniform"),
        run(0.4, right(0.5), "method=linear"),
    ]
    made = report(tmp_path, *runs)

    def jobs(*against: str) -> list[tuple[str, str]]:
        (compared,) = differences(made, against)
        return [(c.job.name, c.baseline.row.jobs[0].name) for c in compared.contrasts]

    assert jobs("omega=null") == jobs("omega=1") == [("1", "0"), ("3", "0")]
    assert jobs("scaling=uniform") == [("1", "3")]
    assert jobs("method=ties", "density=0.20") == [("2", "1"), ("4", "1")]
    assert jobs("density=0.5") == [("1", "2")]
    assert parse_names(made, "--by", ["density", "method.density"]) == ("method.density",) * 2


def test_a_row_tells_its_seeds(tmp_path: Path) -> None:
    """Of a population that is drawn again, base is told apart too."""
    runs = []
    for number, (omega, seed) in enumerate([(None, 0), (0.4, 0), (None, 1), (0.4, 1)]):
        members = {"base": [right(0.3 + seed / 10)], "a": [right(0.5)]}
        runs.append(run(omega, right(number / 10), f"population.seed={seed}", members=members))
    made = report(tmp_path, *runs)
    assert pairs(made, "omega=null") == [
        (f"ties omega=0.4 population.seed={s}", f"ties omega=null population.seed={s}")
        for s in (0, 1)
    ]
    assert [baseline for _, baseline in pairs(made, "base")] == [
        f"base population.seed={seed}" for seed in (0, 1, 0, 1)
    ]


def test_a_reference_may_be_scored_in_another_run(tmp_path: Path) -> None:
    runs = [run(None, right(0.6), references={"joint": [right(0.5)]}), run(0.4, right(0.9)),
            run(0.4, right(0.9), members={"base": [right(0.1)], "b": [right(0.5)]})]  # fmt: skip
    (compared,) = differences(report(tmp_path, *runs), ["joint"])
    assert [(c.job.name, c.against) for c in compared.contrasts] == [("0", "joint [1]"),
                                                                    ("1", "joint [1]")]  # fmt: skip
    for contrast, share in zip(compared.contrasts, (0.6, 0.9), strict=True):
        assert contrast.differences["x"].test == mcnemar(right(0.5), right(share))
        assert GAIN not in contrast.differences, "a gain is a merge's"
    assert compared.omissions() == ["no joint for: 2"]


def test_other_models_are_no_twins(tmp_path: Path) -> None:
    other = {"base": [right(0.3)], "another": [right(0.5)]}
    made = report(tmp_path, run(None, right(0.5)), run(0.4, right(0.6), members=other))
    (compared,) = differences(made)
    assert compared.title == "base"
    with pytest.raises(AimError, match="--against twin with omega=null: no scored run has one"):
        differences(made, ["omega=null"])


def test_a_merge_by_its_label_and_by_its_number(tmp_path: Path) -> None:
    runs = [run(None, right(0.5)), run(0.2, right(0.6), "method=dare_ties"),
            run(0.2, right(0.7), "method=dare_ties", "seed=1"), run(0.2, right(0.8))]  # fmt: skip
    made = report(tmp_path, *runs)
    assert {baseline for _, baseline in pairs(made, "ties omega=0.2")} == {"ties omega=0.2"}
    assert pairs(made, "3") == pairs(made, "ties omega=0.2")
    own = [(f"dare_ties omega=0.2 seed={seed}", "ties omega=null") for seed in (0, 1)]
    assert pairs(made, "0")[:2] == own
    refusals = {
        "Base": "Base: no such model; did you mean base?; there are base, a, the runs 0, 1, 2, 3, "
        "by number or label (ties omega=null, dare_ties omega=0.2), and twins by SETTING=VALUE",
        "omeg=null": "omeg=null: omeg: the runs have no such setting; did you mean omega?; those",
        "omega=0.9": "omega=0.9: no scored run has it; there are: null, 0.2",
    }
    for against, words in refusals.items():
        with pytest.raises(AimError) as refused:
            differences(made, [against])
        assert str(refused.value).startswith(f"--against {words}")
    with pytest.raises(AimError, match=r"--by methd: .*did you mean method\?"):
        differences(made, by=["methd"])
    with pytest.raises(AimError, match="goes with no other --against"):
        differences(made, ["base", "omega=null"])


def test_contrasts_are_grouped_by_settings(tmp_path: Path) -> None:
    runs = [run(omega, right(0.5 + (omega or 0) / 10), f"method={method}")
            for method in ("ties", "linear") for omega in (None, 0.4, 0.6)]  # fmt: skip
    first, _ = differences(report(tmp_path, *runs), by=["omega"])
    assert [(dict(values), len(own)) for values, own in first.grouped()] == [
        ({"omega": "0.4"}, 2), ({"omega": "0.6"}, 2)
    ]  # fmt: skip


# What is kept


def test_a_comparison_once_made_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = report(tmp_path, run(None, right(0.5)), run(0.4, right(0.7)))
    first = differences(made)
    files = sorted((tmp_path / "shared" / FOLDER).iterdir())
    assert len(files) == 3, "relaxed against plain, both against base"
    moved = Path(shutil.move(tmp_path, tmp_path.with_name(f"{tmp_path.name} moved")))
    with monkeypatch.context() as patched:
        patched.setattr("aim_exp.report.paired._paired_tests", None)
        again = differences(make_report(load(moved)))
    for old, new in zip(first, again, strict=True):
        assert [c.differences for c in old.contrasts] == [c.differences for c in new.contrasts]
    for file in sorted((moved / "shared" / FOLDER).iterdir()):
        file.write_text("[1]")
    third = differences(make_report(load(moved)))
    assert [c.differences for c in third[0].contrasts] == [
        c.differences for c in first[0].contrasts
    ]


def test_other_answers_are_compared_anew(tmp_path: Path) -> None:
    made = report(tmp_path / "0", run(None, right(0.5)), run(0.4, right(0.7)))
    before = plain(made).contrasts[0].average.test
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    rewrite(tmp_path / "1" / "1", [{**item("aim_tiny_x", i, each), "target": f"answer {i}"}
                                   for i, each in enumerate(right(0.9))], 0.9)  # fmt: skip
    after = plain(make_report(load(tmp_path / "1"))).contrasts[0].average.test
    assert before
    assert after
    assert (before.difference, after.difference) == pytest.approx((0.2, 0.4))


def test_the_csv_of_differences_has_them_all(tmp_path: Path) -> None:
    made = report(tmp_path, run(None, right(0.5)), run(0.4, right(0.7)))
    compared = differences(made)
    write_csvs(made, compared, tmp_path)
    frame = pd.read_csv(tmp_path / "differences.csv")
    assert list(frame.columns) == ["model", "against", "quantity", "difference", "low", "high",
                                   "p", "p_adjusted", "verdict"]  # fmt: skip
    assert list(zip(frame.model, frame.against, frame.quantity, strict=True)) == [
        (contrast.label, contrast.against, quantity)
        for each in compared for contrast in each.contrasts for quantity in contrast.differences
    ]  # fmt: skip
    assert frame.difference[0] == compared[0].contrasts[0].average.value
