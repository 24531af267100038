"""A run and a sweep in the terminal: every score at every width; nothing absent crashes it."""

import re
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from records import MERGED, POPULATION, accuracies, failed, printed, record, shifted, write_all
from rich.console import Console

from aim_exp.report import refresh, show_job, show_run, show_sweep
from aim_exp.report.differences import differences
from aim_exp.report.load import load
from aim_exp.report.rows import Report, make_report
from aim_exp.report.terminal import print_differences, print_sweep
from aim_exp.store.run_record import RunRecord, Standing


def run_in(directory: Path, made: RunRecord) -> Path:
    return write_all(directory, made) / "0"


def report_of(directory: Path, *records: RunRecord, asked_for: int = 0) -> Report:
    return make_report(load(write_all(directory, *records, asked_for=asked_for)))


def sweep_shown(directory: Path, to: Console) -> None:
    show_sweep(load(directory), directory, to=to)


# A run


@pytest.mark.parametrize("width", [80, 100, 140])
def test_run_table_has_every_score_at_every_width(width, tmp_path):
    run = run_in(tmp_path, record())
    text = printed(partial(show_run, run, next_command="python run.py -m"), width)
    table = [line for line in text.splitlines() if line.startswith((*POPULATION, "merged"))]
    assert len(table) == len(POPULATION) + 1
    for line, scores in zip(table, [*POPULATION.values(), MERGED], strict=True):
        for value in (*scores, np.mean(scores)):
            assert f"{100 * value:.1f} ±" in line
        assert len(line) <= width
    assert "python run.py -m" in text


def test_run_table_says_what_the_record_says(tmp_path):
    made = record(warnings=("one text short", "one text short"))
    text = printed(partial(show_run, run_in(tmp_path, made)))
    assert f"{made.standing.hypervolume_gain:.3f} over base and the merged experts" in text
    assert "49.0, 2.2 above the best member (code, 46.8)" in text
    assert text.count("one text short") == 1
    merged = next(line for line in text.splitlines() if line.startswith("merged"))
    assert "★" in merged


def test_gain_over_all_experts_is_told_when_not_all_were_merged(tmp_path):
    made = record("population.merge=[code,math]")
    gains = made.standing.hypervolume_gain, made.standing.hypervolume_gain_population
    assert gains[0] != gains[1]
    text = printed(partial(show_run, run_in(tmp_path, made)))
    expected = f"{gains[0]:.3f} over base and the merged experts, {gains[1]:.3f} over all experts"
    assert expected in text


def test_many_benchmarks_turn_the_table(tmp_path):
    names = [f"subject_{number:02}" for number in range(30)]
    tasks = ",".join(f"{name}: {{task: {name}, metric: 'acc,none'}}" for name in names)
    made = record(f"benchmarks.tasks={{{tasks}}}", members={"base": [0.25] * 30}, scores=[0.5] * 30)
    lines = printed(partial(show_run, run_in(tmp_path, made)), 80).splitlines()
    table = [line for line in lines if line.startswith("subject_")]
    assert max(map(len, table)) <= 80
    assert len(table) == len(names)
    assert re.findall(r"\d+\.\d", table[-1])[::2] == ["25.0", "50.0"]


def test_references_are_shown_and_do_not_compete(tmp_path):
    console = Console(width=120, force_terminal=True, record=True, file=StringIO())
    show_run(run_in(tmp_path, record(references={"joint": [0.99] * 6})), to=console)
    text = console.export_text(styles=True)
    assert "joint" in text
    bold = re.findall(r"\x1b\[1m(\d+\.\d)", text)
    assert sorted(bold) == ["45.0", "49.0", "69.0", "80.0", "81.0", "93.0", "97.0"]


@pytest.mark.parametrize(
    "bare",
    [
        record("benchmarks=none", scores=None),
        failed(),
        failed(error=""),
        replace(record(), status="running", models=(), benchmarks={}, standing=Standing()),
        record("method=none", "omega=null"),
        record("method=none", "benchmarks=none", scores=None),
        replace(record(), calibration={}, timings={}, versions={}, config={}),
    ],
    ids=[
        "unscored", "failed", "no reason", "running", "population only", "nothing", "no settings",
    ],
)  # fmt: skip
def test_what_is_absent_never_crashes(bare, tmp_path):
    run = run_in(tmp_path, bare)
    printed(partial(show_run, run))
    printed(partial(sweep_shown, tmp_path))
    refresh(tmp_path)
    assert (tmp_path / "report.md").read_text().startswith("# ")
    assert (tmp_path / "results.csv").read_text().count("\n") == 2


# A sweep


@pytest.fixture
def sweep(tmp_path) -> Path:
    return write_all(
        tmp_path / "sweep",
        record("method=ties", "omega=null"),
        record("method=ties", "omega=0.2", scores=shifted(0.02)),
        record("method=ties", "omega=0.4", scores=shifted(0.01)),
        record("method=dare_ties", "omega=null", scores=shifted(-0.04)),
        record("method=dare_ties", "omega=0.4", scores=shifted(-0.02)),
        failed("method.density=2: must lie in (0, 1]", "method.density=2"),
        asked_for=8,
    )


def test_a_job_of_a_sweep_has_one_line():
    line = printed(partial(show_job, record()))
    gain = record().standing.hypervolume_gain
    assert line == f"ties omega=0.4, average 49.0, hypervolume gain {gain:.3f}\n"
    assert printed(partial(show_job, failed())) == "ties omega=0.4\n"


@pytest.mark.parametrize("width", [80, 160])
def test_sweep_table_fits_and_has_every_score(width, tmp_path):
    top = [1.0 if place in (1, 4) else 0.5 for place in range(6)]
    runs = [record("method=task_arithmetic", f"omega={x}", scores=top) for x in ("null", 0.2, 0.4)]
    lines = printed(partial(sweep_shown, write_all(tmp_path, *runs)), width).splitlines()
    jobs = [line for line in lines if re.match(r"\d +task_arithmetic", line)]
    assert len(jobs) == 3
    for line in jobs:
        numbers = re.findall(r"(?<!±)\b\d+\.\d\b", line.split("★")[1])
        assert numbers[-6:] == ["50.0", "100.0", "50.0", "50.0", "100.0", "50.0"]
        assert len(line) <= width
    assert "± up to" in "\n".join(lines) or width == 160


def test_sweep_table_has_a_line_per_job_and_the_failures_at_the_end(sweep):
    lines = printed(partial(sweep_shown, sweep)).splitlines()
    assert "8 jobs, 5 scored, 1 failed, 2 not run" in lines
    jobs = [line.split() for line in lines if re.match(r"\d  +", line)]
    assert [job[:3] for job in jobs] == [
        ["0", "ties", "null"],
        ["1", "ties", "0.2"],
        ["2", "ties", "0.4"],
        ["3", "dare_ties", "null"],
        ["4", "dare_ties", "0.4"],
        ["5", "ties", "0.4"],
    ]
    assert "failed" in jobs[5]
    assert lines[-2:] == [
        "failed: 5 (ties omega=0.4 density=2)",
        "  method.density=2: must lie in (0, 1]",
    ]


def test_a_sweep_that_was_interrupted_says_so(tmp_path):
    made = (record("omega=null"), record(), failed("interrupted", "omega=0.6"))
    write_all(tmp_path, *made, asked_for=6)
    lines = printed(partial(sweep_shown, tmp_path)).splitlines()
    assert "6 jobs, 2 scored, 1 interrupted, 3 not run" in lines
    (row,) = (line for line in lines if re.match(r"2  +ties", line))
    assert "interrupted" in row
    assert lines[-1] == "interrupted: 2 (ties omega=0.6)"
    assert "failed" not in "\n".join(lines)
    refresh(tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "6 jobs, 2 scored, 1 interrupted, 3 not run" in page
    assert "## Interrupted\n\n- `2` (ties omega=0.6)\n" in page
    assert "## Not run\n\n3, 4, 5\n" in page
    assert "## Failed" not in page


def test_a_record_that_cannot_be_read_is_named_in_one_line(sweep):
    (sweep / "3" / "result.json").write_text("{")
    lines = printed(partial(sweep_shown, sweep), 80).splitlines()
    (line,) = (line for line in lines if "not JSON" in line)
    assert line.startswith("warning: ")
    assert "sweep/3: result.json is not JSON" in line or "3: result.json is not JSON" in line


@pytest.mark.parametrize(
    ("limit", "words"), [("20", "20 items"), ("0.1", "10 %"), ("0.025", "2.5 %"), ("null", "")]
)
def test_a_limit_is_told_in_words(limit, words, tmp_path):
    write_all(tmp_path, record(f"benchmarks.limit={limit}"))
    text = printed(partial(sweep_shown, tmp_path))
    assert (f"1 scored, on the first {words} of each task" in text) is bool(words)


def test_protocols_have_tables_of_their_own(tmp_path):
    runs = [record(f"evaluator.max_length={n}", "omega=null", scores=shifted(n / 10_000))
            for n in (45, 52, 256)]  # fmt: skip
    text = printed(partial(sweep_shown, write_all(tmp_path, *runs)), 80)
    titles = re.findall(r"^\[\d\] .*", text, re.MULTILINE)
    assert titles == [f"[{i}] max_length={n}" for i, n in enumerate((45, 52, 256), 1)]
    assert len(re.findall(r"^\d +ties", text, re.MULTILINE)) == 3


# What is compared


def scored_items(*overrides: str, better: float = 0.0, seed: int = 1) -> RunRecord:
    """Base and experts answer alike everywhere; the merge is better by a share of the items.

    Another `seed`: it is right on other ones.
    """
    members = {name: [accuracies(p, 150, 0) for p in row] for name, row in POPULATION.items()}
    scores = [accuracies(min(p + better, 1.0), 150, seed) for p in MERGED]
    return record(*overrides, members=members, scores=scores)


@pytest.fixture
def compared(tmp_path) -> Report:
    return report_of(
        tmp_path,
        scored_items("omega=null"),
        scored_items("omega=0.2", better=0.15),
        scored_items("omega=0.4", better=0.01, seed=9),
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_verdicts_are_clear_at_every_width(width, compared):
    plain, base = differences(compared)
    assert (plain.title, base.title) == ("the plain merge", "base")
    text = printed(lambda to: print_differences(to, plain, compared), width)
    tables = [line for line in text.splitlines() if re.match(r"[12]  ", line)]
    assert len(tables) == (4 if width == 60 else 6)
    verdicts = [line.split()[-1] for line in tables[:2]]
    assert verdicts == ["above", "noise"]
    assert max(map(len, tables)) <= width
    assert ("by benchmark: in the files" in text) is (width == 60)
    assert "Holm: p adjusted over the 2 averages, 2 gains, 12 scores on benchmarks" in text


def test_a_sweep_says_what_holds(compared):
    plain, base = differences(compared)
    lines = printed(
        lambda to: print_sweep(to, compared, compared.runs.directory, (plain, base)), 80
    ).splitlines()
    (fact,) = (line for line in lines if line.startswith("against the plain merge"))
    assert fact.endswith("average above in 1, not told from noise in 1, of 2")
    assert any(line.startswith("against base") for line in lines)


def test_the_best_that_does_not_hold_is_warned_of(tmp_path):
    report = report_of(
        tmp_path, scored_items("omega=null"), scored_items("omega=0.4", better=0.01, seed=9)
    )
    (plain, _) = differences(report)
    text = printed(lambda to: print_differences(to, plain, report))
    assert "warning: no claim holds for the best: ties omega=0.4 is 1.1 points above" in text


# Joined sweeps


@pytest.mark.parametrize("width", [60, 80, 120])
def test_joined_sweeps_with_long_names_are_numbered(width, tmp_path):
    first, second = (tmp_path / f"2026-01-0{day}_a_name_for_people_to_read" for day in (1, 2))
    arithmetic = "method=task_arithmetic"
    write_all(first, record(arithmetic, "omega=null"), record(arithmetic), failed("no", arithmetic))
    write_all(second, record("omega=null"), record("omega=0.4"))
    report = make_report(load(tmp_path))
    text = printed(lambda to: print_sweep(to, report, tmp_path), width)
    for number, sweep in (("S1", first), ("S2", second)):
        assert re.search(rf"^{number} +{sweep.name}$", text, re.MULTILINE)
    rows = [line for line in text.splitlines() if re.match(r"S\d/\d ", line)]
    assert [line.split()[0] for line in rows] == ["S1/0", "S1/1", "S2/0", "S2/1", "S1/2"]
    assert max(map(len, rows)) <= width
    assert "…" not in text
    assert f"failed: {first.name}/2 (task_arithmetic omega=0.4)" in text, "paths can be looked up"


def test_short_names_stay(tmp_path):
    for name in ("one", "two"):
        write_all(tmp_path / name, record(), record("omega=null"))
    runs = load(tmp_path)
    assert runs.sweeps == {}
    assert [job.title for job in runs.jobs] == ["one/0", "one/1", "two/0", "two/1"]
