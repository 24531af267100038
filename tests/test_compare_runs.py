"""Runs against their twins: on real sweeps of the tiny population, and on items written by hand."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from conftest import ROOT
from rich.console import Console

from aim_exp.evaluate.tasks.paper.ifeval import mean_of_four
from aim_exp.pareto import hypervolume_gain
from aim_exp.records import RunRecord, read_record
from aim_exp.report.__main__ import main
from aim_exp.report.compare.comparability import doubts
from aim_exp.report.compare.comparison import Verdict, compare_runs
from aim_exp.report.compare.halves import choices
from aim_exp.report.compare.terminal import print_comparison
from aim_exp.report.compare.twins import find_twins, parse_against, parse_names
from aim_exp.report.methods_paragraph import escape_latex, methods_paragraph
from aim_exp.report.results import collect
from aim_exp.statistics import holm, mcnemar

# Real sweeps


@pytest.fixture(scope="module")
def sweeps(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`many`: two methods, plain and with AIM, on 16 items; `few`: one of them on 8."""
    top = tmp_path_factory.mktemp("sweeps")
    for name, method, limit in (("many", "ties,task_arithmetic", 16), ("few", "ties", 8)):
        subprocess.run(
            [
                sys.executable, str(ROOT / "run.py"), "-m", f"method={method}", "omega=null,0.4",
                f"benchmarks.limit={limit}", "tracker=none", "calibration.n_samples=16",
                f"cache_dir={tiny_cache}", f"hydra.sweep.dir={top / name}",
            ],
            cwd=top, check=True, capture_output=True, timeout=600,
        )  # fmt: skip
    return top


def test_each_run_has_its_plain_merge_for_a_twin(sweeps):
    twins = find_twins(collect(sweeps))
    folders = [(job.folder, twin.folder) for job, twin in twins.pairs]
    assert folders == [("few/1", "few/0"), ("many/1", "many/0"), ("many/3", "many/2")]
    assert twins.alone == twins.repeated == ()


def test_the_tests_are_those_of_the_items_in_the_store(sweeps):
    comparison = compare_runs(collect(sweeps / "many"))
    assert comparison
    tested = 0
    for row in comparison.rows:
        before, after = (read_record(job.directory) for job in (row.twin, row.job))
        assert row.reasons == {}
        assert list(row.scores) == list(after.scores)
        for name, difference in row.scores.items():
            metric = after.benchmarks[name]["metric"].split(",")[0]
            pair = [
                [
                    json.loads(line)["metrics"][metric]
                    for line in Path(file).read_text().splitlines()
                ]
                for file in (before.items["merged"][name], after.items["merged"][name])
            ]
            assert len(pair[0]) == len(pair[1]) == 16
            assert difference.test == mcnemar(*pair)
            assert difference.value == pytest.approx(fmean(pair[1]) - fmean(pair[0]))
            tested += 1
        assert row.average.value == pytest.approx(after.average - before.average)
        assert row.gain.value == pytest.approx(after.hypervolume_gain - before.hypervolume_gain)
        for difference in (row.average, row.gain):
            assert difference.test.difference == pytest.approx(difference.value)
            assert difference.test.low < difference.value < difference.test.high
    assert tested == 12


def test_p_values_are_adjusted_over_each_kind(sweeps):
    rows = compare_runs(collect(sweeps / "many")).rows
    cells = [score for row in rows for score in row.scores.values()]
    for family in ([row.average for row in rows], [row.gain for row in rows], cells):
        assert [each.adjusted_p for each in family] == holm([each.test.p for each in family])


def test_the_command_groups_compares_and_warns(sweeps, tmp_path, capsys):
    arguments = [str(sweeps / "many"), str(sweeps / "few"), "--by", "method"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "against the plain merge" in text
    assert "warning: limit differs: 8, 16 (in every benchmark)" in text
    page = (tmp_path / "report.md").read_text()
    section = page.split("## Against the plain merge")[1].split("\n## ")[0]
    jobs = re.findall(r"^\| (\w+/\d) \|", section, re.MULTILINE)
    assert jobs == ["few/1", "many/1", "many/3"]
    assert re.search(r"points (above|below) its plain merge; 95 % interval", section)
    assert "limit differs" in page.split("## How far to trust it")[1]


def test_another_twin_may_be_asked_for(sweeps, tmp_path, capsys):
    arguments = ["--against", "method=ties", "--by", "omega", "--out", str(tmp_path)]
    assert main([str(sweeps / "many"), *arguments]) == 0
    assert "against method=ties" in capsys.readouterr().out
    comparison = compare_runs(collect(sweeps / "many"), {"method": "ties"}, ("omega",))
    assert [(row.job.folder, row.twin.folder) for row in comparison.rows] == [
        ("2", "0"),
        ("3", "1"),
    ]
    assert [group.values for group in comparison.groups] == [{"omega": "null"}, {"omega": "0.4"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "colour"], "--by colour: the runs have no such setting; those that vary are: "
         "method, omega"),
        (["--against", "colour=red"], "--against colour: the runs have no such setting"),
        (["--against", "omega"], "--against omega: must be SETTING=VALUE, as in omega=null"),
        (["--against", "omega=0.9"], "no scored run has it; there are: null, 0.4"),
        (["--against", "seed=0"], "--against seed=0: no two scored runs differ in nothing else"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_in_one_line(arguments, message, sweeps, capsys):
    assert main([str(sweeps / "many"), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_help_is_a_page_with_examples():
    done = subprocess.run(
        [sys.executable, "-m", "aim_exp.report", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "90"},
    )  # fmt: skip
    assert done.stdout.count("\n    python -m aim_exp.report ") == 6
    assert max(map(len, done.stdout.splitlines())) <= 90


def test_the_methods_paragraph_is_from_the_records(sweeps, capsys):
    assert main([str(sweeps / "many"), "--methods-paragraph"]) == 0
    text = capsys.readouterr().out
    record = read_record(sweeps / "many" / "1")
    for fact in (
        "ties (weight 1, scale 1, density 0.2, normalize true)", "omega 0.4", "plain merges",
        "scaling identity", "base, code, instruct and math", "n samples 16",
        f"{record.calibration['n_tokens']} tokens", "metric pass@1", "limit 16", "16 items",
        "McNemar", f"torch {record.versions['torch']}", "The 4 runs took", "processors",
    ):  # fmt: skip
        assert fact in text
    assert main([str(sweeps / "many"), "--methods-paragraph", "--latex"]) == 0
    assert r"task\_arithmetic" in capsys.readouterr().out


# Items written by hand

MEMBERS = {"base": 0.3, "a": 0.5}


def accuracies(share: float, items: int = 40) -> list[float]:
    return [float(number < round(share * items)) for number in range(items)]


def write(folder: Path, omega: float | None, values, score: float, **changed) -> RunRecord:
    """A run whose merge got `values` of the items of `x`; its population, fixed shares of them.

    `values` are the metric's by item, or by task and item.
    """
    by_task = values if isinstance(values, dict) else {"t": values}
    scores = {name: {"x": share} for name, share in MEMBERS.items()}
    folder.mkdir(parents=True)
    answers = {"merged": by_task, **{name: {"t": accuracies(s)} for name, s in MEMBERS.items()}}
    for name, tasks in answers.items():
        lines = [
            {"task": task, "doc_id": i, "filter": f, "target": i, "metrics": {"m": value}}
            for task, items in tasks.items()
            for i, item in enumerate(items)
            for f, value in (("strict", 0.0), ("flexible", item))
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = RunRecord(
        method="ties",
        omega=omega,
        population={"name": "p", "merged": ["a"], "models": {"base": "b", "a": "a"}},
        suite="s",
        benchmarks={"x": {"task": "t", "metric": "m,flexible", "reference_point": 0.0}},
        scores={"x": score},
        stderr={"x": 0.1},
        population_scores=scores,
        items={name: {"x": str(folder / f"{name}.jsonl")} for name in answers},
        average=score,
        hypervolume_gain=hypervolume_gain([score], [[s] for s in MEMBERS.values()]),
        keys={"weights": {"merged": str(folder), **{name: name for name in MEMBERS}}},
        versions={"torch": "2", "lm-eval": "0.4"},
    )
    record = replace(record, **changed)
    record.write(folder)
    return record


def only_row(directory: Path):
    (row,) = compare_runs(collect(directory)).rows
    return row


def test_a_claim_that_holds_and_one_that_does_not(tmp_path):
    write(tmp_path / "0", None, accuracies(0.5), 0.5)
    write(tmp_path / "1", 0.4, accuracies(0.55), 0.55)
    write(tmp_path / "2", 0.6, accuracies(0.9), 0.9)
    comparison = compare_runs(collect(tmp_path))
    assert [row.average.verdict for row in comparison.rows] == [Verdict.NOISE, Verdict.ABOVE]
    weak, strong = map(comparison.sentence, comparison.rows)
    assert re.fullmatch(
        r"ties omega=0.4 is 5.0 points above its plain merge; "
        r"95 % interval 0.0 to \+12.5: not told from noise",
        weak,
    )
    assert strong.endswith(": holds")
    assert comparison.summary() == "average above in 1, not told from noise in 1, of 2"


def test_one_that_would_hold_alone_says_among_how_many_it_does_not(tmp_path):
    write(tmp_path / "0", None, accuracies(0.5), 0.5)
    for number in range(1, 8):
        write(tmp_path / str(number), number / 10, accuracies(0.65), 0.65)
    comparison = compare_runs(collect(tmp_path))
    assert {row.average.test.p < 0.05 for row in comparison.rows} == {True}
    assert comparison.sentence(comparison.rows[0]).endswith(
        "not told from noise among 7 comparisons"
    )


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


def test_the_mean_of_ifevals_four_metrics_is_bootstrapped(tmp_path):
    for number, omega in enumerate((None, 0.4)):
        items = instructions(number)
        write(tmp_path / str(number), omega, items, mean_of_four(items))
    row = only_row(tmp_path)
    test = row.scores["x"].test
    assert test.low < row.scores["x"].value < test.high
    own = row.average.test  # one benchmark is its own average
    assert (own.low, own.high, own.p) == pytest.approx((test.low, test.high, test.p), abs=0.02)
    assert choices(collect(tmp_path))[0].candidates == 2


@pytest.mark.parametrize("weighted", [True, False], ids=["by size", "equal"])
def test_groups_of_tasks_count_as_the_harness_counted_them(weighted, tmp_path):
    tasks = [{"u": accuracies(u, 30), "v": accuracies(v, 10)} for u, v in ((0.5, 0.5), (0.6, 0.9))]
    for number, omega in enumerate((None, 0.4)):
        means = {name: fmean(items) for name, items in tasks[number].items()}
        score = 0.75 * means["u"] + 0.25 * means["v"] if weighted else fmean(means.values())
        write(tmp_path / str(number), omega, tasks[number], score)
    test = only_row(tmp_path).scores["x"].test
    assert test.difference == pytest.approx(0.175 if weighted else 0.25)
    pooled = mcnemar(*(task["u"] + task["v"] for task in tasks))
    assert (test == pooled) is weighted


def test_a_score_that_is_no_mean_of_its_items_is_left_out_and_says_so(tmp_path):
    write(tmp_path / "0", None, accuracies(0.5), 0.123)
    write(tmp_path / "1", 0.4, accuracies(0.6), 0.6)
    comparison = compare_runs(collect(tmp_path))
    (row,) = comparison.rows
    assert row.average.value == pytest.approx(0.477)
    assert row.average.verdict == Verdict.UNTESTED
    assert comparison.omissions() == ["not tested: the score is no mean over items (x)"]


@pytest.mark.parametrize("gone", ["merged", "base"])
def test_when_the_cache_is_gone_one_line_says_so(gone, tmp_path):
    write(tmp_path / "0", None, accuracies(0.5), 0.5)
    write(tmp_path / "1", 0.4, accuracies(0.9), 0.9)
    (tmp_path / "1" / f"{gone}.jsonl").unlink()
    comparison = compare_runs(collect(tmp_path))
    what = "x" if gone == "merged" else "hypervolume gain"
    assert comparison.omissions() == [
        f"not tested: the results by item are no longer in the cache ({what})"
    ]
    (row,) = comparison.rows
    assert row.gain.verdict == Verdict.UNTESTED
    assert (row.average.verdict == Verdict.UNTESTED) is (gone == "merged")
    assert main([str(tmp_path)]) == 0


def test_other_items_are_not_paired(tmp_path):
    write(tmp_path / "0", None, accuracies(0.5, 40), 0.5)
    write(tmp_path / "1", 0.4, accuracies(0.5, 20), 0.5)
    assert compare_runs(collect(tmp_path)).omissions() == ["not tested: not the same items (x)"]


def test_the_same_model_counts_once(tmp_path):
    write(tmp_path / "a" / "0", None, accuracies(0.5), 0.5)
    once = write(tmp_path / "a" / "1", 0.4, accuracies(0.9), 0.9)
    (tmp_path / "b" / "0").mkdir(parents=True)
    once.write(tmp_path / "b" / "0")
    comparison = compare_runs(collect(tmp_path))
    assert [row.job.folder for row in comparison.rows] == ["a/1"]
    assert comparison.omissions() == ["the same model as an earlier run, counted once: b/0"]


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
        found = find_twins(results, parse_against(results, against))
        return [(job.folder, twin.folder) for job, twin in found.pairs]

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


# Doubts


def protocol(**changed):
    told = {"limit": None, "num_fewshot": 0, "items": "digest", "lm_eval": "0.4"}
    return {"x": {"task": "t", "metric": "m,flexible", "protocol": {**told, **changed}}}


@pytest.mark.parametrize(
    ("changed", "doubt"),
    [
        ({}, None),
        ({"suite": "other"}, "suites differ: s, other: they ask in other ways"),
        ({"benchmarks": protocol(limit=10)}, "limit differs: null, 10 (in every benchmark)"),
        ({"benchmarks": protocol(num_fewshot=5)}, "num_fewshot differs: 0, 5"),
        ({"benchmarks": protocol(items="other")}, "the items differ (in every benchmark)"),
        ({"versions": {"torch": "3", "lm-eval": "0.4"}}, "torch differs: 2, 3: versions can"),
        ({"population_scores": {"base": {"x": 0.35}, "a": {"x": 0.5}}},
         "base on x scored 30.0 in 0 and 35.0 in 1, the same weights asked the same"),
        ({"scores": {"x": 0.5}}, "2 different models score exactly the same on every benchmark: "
         "0 (ties omega=null), 1 (ties omega=0.4)"),
    ],
    ids=["none", "suite", "limit", "shots", "items", "version", "population", "same scores"],
)  # fmt: skip
def test_what_forbids_to_compare_is_named(changed, doubt, tmp_path):
    members = {"base": {"x": 0.3}, "a": {"x": 0.4}}
    same = {"benchmarks": protocol(), "population_scores": members}
    keys = {"weights": {"merged": "one", "base": "b", "a": "a"}}
    write(tmp_path / "0", None, accuracies(0.5), 0.5, keys=keys, **same)
    other = {"weights": {"merged": "two", "base": "b", "a": "a"}}
    write(tmp_path / "1", 0.4, accuracies(0.6), 0.6, keys=other, **{**same, **changed})
    found = doubts(collect(tmp_path))
    if "population_scores" in changed:
        found = [line for line in found if "asked the same" in line]
    assert len(found) == (doubt is not None)
    assert doubt is None or found[0].startswith(doubt)


# Words


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_every_row_at_every_width(width, sweeps):
    console = Console(width=width, highlight=False, record=True, file=StringIO())
    print_comparison(console, compare_runs(collect(sweeps), by=("method",)))
    lines = console.export_text().splitlines()
    rows = [line for line in lines if re.match(r"(few|many)/\d ", line)]
    assert len(rows) == 9, "three runs: the average, the gain, the benchmarks"
    assert max(len(line) for line in rows) <= width


def test_latex_is_escaped():
    assert escape_latex("50% of task_a & {b} ~ c^2 \\ #1 $") == (
        r"50\% of task\_a \& \{b\} \textasciitilde{} c\textasciicircum{}2 \textbackslash{} \#1 \$"
    )


def test_licences_stand_in_the_paragraph_where_the_cards_are(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "README.md").write_text("---\nlicense: other\nlicense_name: llama2\n---\n# Card\n")
    population = {"name": "p", "merged": ["a"], "base": str(model), "experts": {"a": "gone"},
                  "models": {"base": "hub:org/base@12ab", "a": "sha256:34"}}  # fmt: skip
    write(tmp_path / "0", None, accuracies(0.5), 0.5, population=population)
    text = methods_paragraph(collect(tmp_path / "0"))
    assert "base (org/base@12ab, licence llama2) and a" in text
    assert "AIM was not applied." in text
    assert partial(methods_paragraph, latex=True)(collect(tmp_path / "0")).count("@12ab") == 1
