"""Runs against their baselines, on real sweeps of the tiny population."""

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from statistics import fmean

import pytest
from conftest import ROOT
from rich.console import Console

from aim_exp.report.__main__ import main
from aim_exp.report.compare.baselines import Twin, find_pairs, parse_against
from aim_exp.report.compare.comparison import compare_runs
from aim_exp.report.compare.terminal import print_comparison
from aim_exp.report.methods_paragraph import escape_latex
from aim_exp.report.results import collect
from aim_exp.statistics import holm, mcnemar
from aim_exp.store.records import read_record


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


def values(file: str, metric: str) -> list[float]:
    """Of each item."""
    name = metric.split(",")[0]
    return [json.loads(line)["metrics"][name] for line in Path(file).read_text().splitlines()]


def test_each_run_has_its_plain_merge_for_a_twin(sweeps):
    found = find_pairs(collect(sweeps))
    folders = [(job.folder, twin.job.folder) for job, twin in found.pairs]
    assert folders == [("few/1", "few/0"), ("many/1", "many/0"), ("many/3", "many/2")]
    assert found.alone == ()


def test_the_tests_are_those_of_the_items_in_the_store(sweeps):
    comparison = compare_runs(collect(sweeps / "many"))
    assert comparison
    tested = 0
    for row in comparison.rows:
        before, after = (read_record(job.directory) for job in (row.baseline.job, row.job))
        assert row.reasons == {}
        assert list(row.scores) == list(after.scores)
        for name, difference in row.scores.items():
            files = [record.items["merged"][name] for record in (before, after)]
            pair = [values(file, after.benchmarks[name]["metric"]) for file in files]
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
    comparison = compare_runs(collect(sweeps / "many"), Twin({"method": "ties"}), ("omega",))
    assert [(row.job.folder, row.baseline.name) for row in comparison.rows] == [
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
        (["--against", "maths"], "--against maths: no such model; did you mean math?; there are "
         "base, code, instruct, math, the runs 0, 1, 2, 3, by number or label (ties omega=null, "
         "ties omega=0.4), and twins by SETTING=VALUE, as in omega=null"),
        (["--by", "methd"], "--by methd: the runs have no such setting; did you mean method?; "
         "those that vary are: method, omega"),
        (["--against", "base", "--against", "omega=null"],
         "--against base: the name of a model goes with no other --against"),
        (["--against", "omega=0.9"], "no scored run has it; there are: null, 0.4"),
        (["--against", "seed=0"], "--against twin with seed=0: no scored run has one"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_in_one_line(arguments, message, sweeps, capsys):
    assert main([str(sweeps / "many"), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("name", ["base", "math", "1"])
def test_any_model_of_the_table_may_be_what_runs_are_compared_with(name, sweeps, tmp_path, capsys):
    results = collect(sweeps / "many")
    comparison = compare_runs(results, parse_against(results, [name]))
    runs = [row.job.folder for row in comparison.rows]
    assert runs == (["0", "2", "3"] if name == "1" else ["0", "1", "2", "3"])
    for row in comparison.rows:
        record = read_record(row.job.directory)
        other = read_record(sweeps / "many" / (name if name == "1" else row.job.folder))
        scores = other.scores if name == "1" else other.population_scores[name]
        files = other.items["merged" if name == "1" else name]
        assert row.average.value == pytest.approx(record.average - fmean(scores.values()))
        assert row.average.test.difference == pytest.approx(row.average.value)
        assert len(row.scores) == 6
        for benchmark, difference in row.scores.items():
            before, after = files[benchmark], record.items["merged"][benchmark]
            metric = record.benchmarks[benchmark]["metric"]
            assert difference.test == mcnemar(values(before, metric), values(after, metric))
        assert (row.gain is not None) == (name == "1"), "a gain is a merge's"
    assert main([str(sweeps / "many"), "--against", name, "--out", str(tmp_path)]) == 0
    title = {"1": "1 (ties omega=0.4)"}.get(name, name)
    assert f"against {title}\n" in capsys.readouterr().out
    assert f"\n## Against {title}\n" in (tmp_path / "report.md").read_text()
    assert f"Against {title}</h2>" in (tmp_path / "report.html").read_text()


def test_a_member_is_that_of_the_runs_own_population(sweeps):
    results = collect(sweeps)  # of 8 items and of 16: each scored base by itself
    comparison = compare_runs(results, parse_against(results, ["base"]))
    baselines = {
        row.job.folder.split("/")[0]: comparison.baseline_label(row) for row in comparison.rows
    }
    assert baselines == {"few": "base [1]", "many": "base [2]"}
    assert all(row.reasons == {} for row in comparison.rows), "on the same items"


def test_a_row_names_its_study(sweeps, tmp_path, capsys):
    labels = ["ties omega=0.4 [1]", "ties omega=0.4 [2]", "task_arithmetic omega=0.4 [2]"]
    comparison = compare_runs(collect(sweeps))
    assert [comparison.label(row) for row in comparison.rows] == labels
    assert [comparison.baseline_label(row) for row in comparison.rows] == [
        label.replace("0.4", "null") for label in labels
    ]
    assert main([str(sweeps), "--out", str(tmp_path)]) == 0
    pages = [(tmp_path / name).read_text() for name in ("report.md", "report.html")]
    for text in (capsys.readouterr().out, *pages):
        assert "[1] limit=8" in text
        assert all(label in text for label in labels)
    few = compare_runs(collect(sweeps / "few"))
    assert [few.label(row) for row in few.rows] == ["ties omega=0.4"], "one study needs no number"


def test_help_is_a_page_with_examples():
    done = subprocess.run(
        [sys.executable, "-m", "aim_exp.report", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "90"},
    )  # fmt: skip
    assert done.stdout.count("\n    python -m aim_exp.report ") == 8
    assert max(map(len, done.stdout.splitlines())) <= 90


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_every_row_at_every_width(width, sweeps):
    console = Console(width=width, highlight=False, record=True, file=StringIO())
    print_comparison(console, compare_runs(collect(sweeps), by=("method",)))
    lines = console.export_text().splitlines()
    rows = [line for line in lines if re.match(r"(few|many)/\d ", line)]
    assert len(rows) == 9, "three runs: the average, the gain, the benchmarks"
    assert max(len(line) for line in rows) <= width


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


def test_latex_is_escaped():
    assert escape_latex("50% of task_a & {b} ~ c^2 \\ #1 $") == (
        r"50\% of task\_a \& \{b\} \textasciitilde{} c\textasciicircum{}2 \textbackslash{} \#1 \$"
    )
