"""A run and a sweep in the terminal: every score at every width; nothing absent crashes it."""

import re
from dataclasses import replace
from functools import partial
from io import StringIO

import numpy as np
import pytest
from records import (
    BENCHMARKS,
    MERGED,
    POPULATION,
    UNSCORED,
    failed,
    printed,
    record,
    rows_of,
    write_all,
)
from rich.console import Console

from aim_exp.report import refresh, show_job, show_run, show_sweep
from aim_exp.report.compare.comparison import compare_runs
from aim_exp.report.compare.terminal import print_comparison
from aim_exp.report.results import collect
from aim_exp.report.terminal import print_sweep
from aim_exp.store.records import RunRecord


@pytest.mark.parametrize("width", [80, 100, 140])
def test_run_table_has_every_score_at_every_width(width, tmp_path):
    text = printed(partial(show_run, record(), tmp_path, next_command="python run.py -m"), width)
    table = [line for line in text.splitlines() if line.startswith((*POPULATION, "merged"))]
    assert len(table) == len(POPULATION) + 1
    for line, scores in zip(table, [*POPULATION.values(), MERGED], strict=True):
        for value in (*scores, np.mean(scores)):
            assert f"{100 * value:.1f} ±" in line
        assert len(line) <= width
    assert "python run.py -m" in text


def test_run_table_says_what_the_record_says(tmp_path):
    text = printed(partial(show_run, record(warnings=["one text short"] * 2), tmp_path))
    assert f"{record().hypervolume_gain:.3f} over base and the merged experts" in text
    assert "49.0 ±1.6, 2.2 above the best member (code, 46.8)" in text
    assert text.count("one text short") == 1
    merged = next(line for line in text.splitlines() if line.startswith("merged"))
    assert "★" in merged


def test_gain_over_all_experts_is_told_when_not_all_were_merged(tmp_path):
    pair = {**record().population, "merged": ["code", "math"]}
    text = printed(
        partial(
            show_run,
            record(population=pair, hypervolume_gain=0.5, hypervolume_gain_population=0.25),
            tmp_path,
        )
    )
    assert "0.500 over base and the merged experts, 0.250 over all experts" in text


def test_the_star_follows_the_record(tmp_path):
    text = printed(partial(show_run, record(on_front=["code"]), tmp_path))
    stars = [line.split()[0] for line in text.splitlines() if "★" in line and "±" in line]
    assert stars == ["code", "percent"]


def test_many_benchmarks_turn_the_table(tmp_path):
    names = [f"subject_{number:02}" for number in range(30)]
    wide = replace(
        record(stderr=None, population_scores={"base": dict.fromkeys(names, 0.25)}),
        scores=dict.fromkeys(names, 0.5),
    )
    lines = printed(partial(show_run, wide, tmp_path), 80).splitlines()
    table = [line for line in lines if line.startswith("subject_")]
    assert max(map(len, table)) <= 80
    assert len(table) == len(names)
    assert table[-1].split() == ["subject_29", "25.0", "50.0"]


def test_references_are_shown_and_do_not_compete(tmp_path):
    joint = record(reference_scores={"joint": dict.fromkeys(BENCHMARKS, 0.99)})
    console = Console(width=120, force_terminal=True, record=True, file=StringIO())
    show_run(joint, tmp_path, to=console)
    bold = re.findall(r"\x1b\[1m(\d+\.\d)", console.export_text(styles=True))
    assert sorted(bold) == ["45.0", "49.0", "69.0", "80.0", "81.0", "93.0", "97.0"]


@pytest.mark.parametrize(
    "bare",
    [
        replace(record(), **UNSCORED),
        failed(),
        RunRecord(),
        replace(record("none", None), scores=None, stderr=None, average=None),
        record(population_scores=None, population_stderr=None),
        record(population={}, calibration={}, aim={}),
        failed(error=None),
        record(stderr=dict.fromkeys(BENCHMARKS)),
    ],
    ids=[
        "unscored",
        "failed",
        "empty",
        "population only",
        "merged only",
        "no settings",
        "no reason",
        "no errors",
    ],
)
def test_null_fields_never_crash(bare, tmp_path):
    directory = write_all(tmp_path, bare)
    printed(partial(show_run, bare, directory))
    printed(partial(show_sweep, directory))
    refresh(directory)
    assert len(rows_of(directory)) == 1
    assert (directory / "report.md").read_text().startswith("# ")


# A sweep


def test_a_job_of_a_sweep_has_one_line(tmp_path):
    line = printed(partial(show_job, record()))
    gain = record().hypervolume_gain
    assert line == f"ties omega=0.4, average 49.0 ±1.6, hypervolume gain {gain:.3f}\n"
    assert printed(partial(show_job, failed())) == "ties omega=0.4\n"


def test_a_table_too_wide_for_the_terminal_wraps_its_settings(tmp_path):
    for job in range(4):
        varied = record("task_arithmetic", 0.4)
        varied.calibration = {"name": "text", "n_samples": 16 * (job + 1), "path": f"text{job}.txt"}
        varied.method_settings = {"weight": {"code": job, "math": 1.5}, "scale": 0.1 * job}
        write_all(tmp_path / f"a_rather_long_name_of_a_job_{job}", varied)
    text = printed(partial(show_sweep, tmp_path), 80)
    gain = f"{record('task_arithmetic', 0.4).hypervolume_gain:.3f}"
    assert text.count(gain) == 4
    for job in range(4):
        assert f"n_samples={16 * (job + 1)}" in text
    assert max(map(len, text.splitlines()[:-2])) <= 80


@pytest.mark.parametrize("width", [80, 160])
def test_sweep_table_fits_and_has_every_score(width, tmp_path):
    top = tuple(1.0 if name in ("mbpp", "mmlu") else 0.5 for name in BENCHMARKS)
    write_all(tmp_path, *[record("task_arithmetic", x, top) for x in (None, 0.2, 0.4)])
    lines = printed(partial(show_sweep, tmp_path), width).splitlines()
    jobs = [line for line in lines if "task_arithmetic" in line]
    assert len(jobs) == 3
    for line in jobs:
        assert re.findall(r"\d+\.\d", line.split("★")[1])[-1] in ("50.0", "4.1")
        assert line.count("100.0") == 2
        assert len(line) <= width


def test_sweep_table_has_a_line_per_job_and_the_failures_at_the_end(sweep):
    lines = printed(partial(show_sweep, sweep)).splitlines()
    jobs = [line.split() for line in lines if re.match(r"\d  +", line)]
    assert [job[:3] for job in jobs[:5]] == [
        ["0", "ties", "null"],
        ["1", "ties", "0.2"],
        ["2", "ties", "0.4"],
        ["3", "dare_ties", "null"],
        ["4", "dare_ties", "0.4"],
    ]
    assert "failed" in jobs[5]
    assert lines[-2:] == ["failed: 5 (ties omega=0.4)", "  method.density=2: must lie in (0, 1]"]


def test_a_sweep_that_was_interrupted_says_so(tmp_path):
    write_all(tmp_path, record(omega=None), record(), failed("interrupted"))
    lines = printed(partial(show_sweep, tmp_path, planned=6)).splitlines()
    assert "interrupted, 3 of 6 jobs, 2 scored, 1 interrupted" in lines
    (row,) = (line for line in lines if re.match(r"2  +ties", line))
    assert "interrupted" in row
    assert lines[-1] == "interrupted: 2 (ties omega=0.4)"
    refresh(tmp_path, planned=6)
    page = (tmp_path / "report.md").read_text()
    assert "interrupted, 3 of 6 jobs, 2 scored, 1 interrupted" in page
    assert "## Interrupted\n\n- `2` (ties omega=0.4)\n" in page
    assert "failed" not in "\n".join(lines)
    assert "## Failed" not in page
    for planned in (3, None):  # all ran, or it is not known
        text = printed(partial(show_sweep, tmp_path, planned=planned))
        assert "\n3 jobs, 2 scored, 1 interrupted\n" in text


@pytest.mark.parametrize(
    ("limit", "words"), [(20, "20 items"), (0.1, "10 %"), (0.025, "2.5 %"), (None, "")]
)
def test_a_limit_is_told_in_words(limit, words, tmp_path):
    about = {name: {"protocol": {"limit": limit}} for name in BENCHMARKS}
    text = printed(partial(show_sweep, write_all(tmp_path, record(benchmarks=about))))
    assert (f"1 scored, on the first {words} of each task" in text) is bool(words)


# Joined sweeps


@pytest.mark.parametrize("width", [60, 80, 120])
def test_joined_sweeps_with_long_names_are_numbered(width, tmp_path):
    first, second = (tmp_path / f"2026-01-0{day}_a_name_for_people_to_read" for day in (1, 2))
    write_all(first, record("task_arithmetic", None), record("task_arithmetic"), failed())
    write_all(second, record("authors/dare_linear", None), record("authors/dare_linear"))
    results = collect(tmp_path)
    comparison = compare_runs(results, by=("method",))
    assert comparison
    text = printed(lambda to: print_sweep(to, results, tmp_path, comparison), width)
    text += printed(lambda to: print_comparison(to, comparison), width)
    for number, sweep in (("S1", first), ("S2", second)):
        assert re.search(rf"^{number} +{sweep.name}$", text, re.MULTILINE)
    narrow = width == 60
    rows = [line for line in text.splitlines() if re.match(r"S\d/\d ", line)]
    assert [line.split()[0] for line in rows[:5]] == ["S1/0", "S1/1", "S2/0", "S2/1", "S1/2"]
    assert [line.split()[0] for line in rows[5:]] == ["S1/1", "S2/1"] * (3 - narrow)
    assert max(map(len, rows)) <= width
    assert "…" not in text
    assert ("a job's settings: in the table of averages" in text) is narrow
    assert ("by benchmark: in report.md, or on a wider terminal" in text) is narrow
    assert f"failed: {first.name}/2 (ties omega=0.4)" in text, "what can be looked up has its path"


def test_short_names_stay(tmp_path):
    for name in ("one", "two"):
        write_all(tmp_path / name, record(), record(omega=None))
    results = collect(tmp_path)
    assert results.sweeps == {}
    assert [job.name for job in results.jobs] == ["one/0", "one/1", "two/0", "two/1"]
