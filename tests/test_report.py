"""Records to tables, figures and a page: what is in them, and that nothing makes them crash."""

import csv
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from aim_exp.errors import AimError
from aim_exp.pareto import hypervolume, hypervolume_gain, non_dominated
from aim_exp.records import RunRecord
from aim_exp.report import draw_run, due, rebuild, refresh, show_job, show_run, show_sweep
from aim_exp.report.__main__ import main
from aim_exp.report.plots import curves, front
from aim_exp.report.results import collect
from aim_exp.report.style import METHODS, method_style

BENCHMARKS = ("humaneval", "mbpp", "math", "gsm8k", "mmlu", "ifeval")
POPULATION = {
    "base": (0.32, 0.38, 0.28, 0.44, 0.61, 0.28),
    "code": (0.93, 0.80, 0.17, 0.21, 0.48, 0.22),
    "instruct": (0.09, 0.26, 0.16, 0.28, 0.97, 0.69),
    "math": (0.25, 0.34, 0.45, 0.81, 0.54, 0.27),
}
MERGED = (0.50, 0.54, 0.24, 0.35, 0.80, 0.51)
UNSCORED = dict.fromkeys((
    "scores", "stderr", "n_items", "population_scores", "population_stderr", "average",
    "normalised_average", "gain_over_best_member", "on_front", "hypervolume",
    "hypervolume_gain", "hypervolume_gain_population", "hypervolume_difference",
))  # fmt: skip


def by_benchmark(values):
    return dict(zip(BENCHMARKS, values, strict=True))


def errors(values):
    return {name: (p * (1 - p) / 149) ** 0.5 for name, p in by_benchmark(values).items()}


def record(method="ties", omega: float | None = 0.4, scores=MERGED, **changed) -> RunRecord:
    population = np.array(list(POPULATION.values()))
    gain = hypervolume_gain(scores, population)
    on_front = non_dominated([*population, scores])
    names = [*POPULATION, "merged"]
    made = RunRecord(
        created="2026-01-02T03:04:05Z",
        command=f"python run.py method={method} omega={'null' if omega is None else omega}",
        method=method,
        method_settings={"weight": 1.0, "density": 0.2},
        omega=omega,
        aim={"statistic": "mean_abs", "scaling": "relative"},
        calibration={"name": "tiny", "n_samples": 64, "n_texts": 60},
        population={
            "name": "tiny",
            "base": "somewhere",
            "experts": {"code": "a", "instruct": "b", "math": "c"},
            "merged": ["code", "instruct", "math"],
        },
        suite="tiny",
        scores=by_benchmark(scores),
        stderr=errors(scores),
        population_scores={name: by_benchmark(row) for name, row in POPULATION.items()},
        population_stderr={name: errors(row) for name, row in POPULATION.items()},
        average=float(np.mean(scores)),
        normalised_average=0.8,
        on_front=[name for name, mark in zip(names, on_front, strict=True) if mark],
        hypervolume=hypervolume([*population, scores]),
        hypervolume_gain=gain,
        hypervolume_gain_population=gain,
        timings={"merge": 1.0, "evaluate": 2.0},
        versions={"torch": "2.13.0"},
    )
    return replace(made, **changed)


def failed(error: str | None = "method.density=2: must lie in (0, 1]") -> RunRecord:
    return RunRecord(status="failed", error=error, method="ties", omega=0.4)


def shifted(amount):
    return tuple(round(score + amount, 6) for score in MERGED)


def write_all(directory: Path, *records: RunRecord) -> Path:
    for number, item in enumerate(records):
        folder = directory / str(number)
        folder.mkdir(parents=True)
        item.write(folder)
    return directory


@pytest.fixture
def sweep(tmp_path):
    return write_all(
        tmp_path,
        record("ties", None, shifted(-0.02)),
        record("ties", 0.2, shifted(0.02)),
        record("ties", 0.4),
        record("dare_ties", None, shifted(-0.1)),
        record("dare_ties", 0.4, shifted(-0.05)),
        failed(),
    )


def printed(show, width=200) -> str:
    console = Console(width=width, highlight=False, record=True, file=StringIO())
    show(to=console)
    return console.export_text()


def rows_of(directory: Path) -> list[dict[str, str]]:
    with (directory / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# A run's table


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


def test_csv_has_the_raw_numbers(sweep):
    refresh(sweep)
    rows = rows_of(sweep)
    assert [row["job"] for row in rows] == list("012345")
    best, error = rows[1], rows[5]
    expected = record("ties", 0.2, shifted(0.02))
    assert float(best["mmlu"]) == expected.scores["mmlu"]
    assert float(best["mmlu_stderr"]) == expected.stderr["mmlu"]
    assert float(best["hypervolume_gain"]) == expected.hypervolume_gain
    spread = sum(value**2 for value in expected.stderr.values()) ** 0.5 / 6
    assert float(best["average_stderr"]) == pytest.approx(spread)
    assert (best["on_front"], best["omega"], best["seconds"]) == ("True", "0.2", "3.0")
    assert (error["status"], error["average"]) == ("failed", "")
    assert error["error"] == failed().error


def test_only_what_varies_becomes_a_column(tmp_path):
    sparse = record(method_settings={"weight": 1.0, "density": 0.5})
    other = record("task_arithmetic", method_settings={"weight": 1.0})
    uniform = record(aim={"statistic": "mean_abs", "scaling": "uniform"})
    plain = record(omega=None, calibration={})
    pair = record(population={**record().population, "merged": ["code", "math"]}, seed=7)
    results = collect(write_all(tmp_path, record(), sparse, other, uniform, plain, pair))
    assert results.varying == (
        "method", "omega", "experts", "method.density", "seed", "aim.scaling",
    )  # fmt: skip
    assert results.label(results.jobs[3]) == (
        "ties omega=0.4 experts=code+instruct+math density=0.2 seed=0 scaling=uniform"
    )


def test_joint_front_counts_the_other_jobs(tmp_path):
    results = collect(write_all(tmp_path, record(), record("linear", scores=shifted(0.01))))
    assert all("merged" in (job.record.on_front or ()) for job in results.jobs)
    assert [results.on_front(job) for job in results.jobs] == [False, True]


def test_runs_with_other_base_scores_are_another_population(tmp_path):
    scores = {name: by_benchmark([0.9 * x for x in row]) for name, row in POPULATION.items()}
    results = collect(write_all(tmp_path, record(), record(population_scores=scores)))
    assert [job.population for job in results.jobs] == [0, 1]
    assert "base [2]" in printed(partial(show_sweep, tmp_path))


def test_page_tells_the_whole_story(sweep):
    refresh(sweep)
    page = (sweep / "report.md").read_text()
    for title in (
        "Leaderboard", "Population", "Against the plain merge", "Figures", "Failed",
        "How far to trust it", "How to repeat each", "Where this is from",
    ):  # fmt: skip
        assert f"## {title}\n" in page
    board = page.split("## Leaderboard")[1].split("##")[0]
    assert re.findall(r"^\| (\d)", board, re.MULTILINE) == ["1", "2", "0", "4", "3"]
    assert "`5` (ties omega=0.4): method.density=2: must lie in (0, 1]" in page
    assert "python run.py method=dare_ties omega=null" in page
    for picture in re.findall(r"\((figures/[^)]*)\)", page):
        assert (sweep / picture).stat().st_size > 0
    assert len(re.findall(r"!\[", page)) == 3


def test_page_without_any_score(tmp_path):
    refresh(write_all(tmp_path, failed("x\ny"), replace(record(), **UNSCORED)))
    page = (tmp_path / "report.md").read_text()
    assert "2 jobs, 0 scored, 1 failed" in page
    assert "No merged model was scored." in page
    assert not (tmp_path / "figures").exists()


def test_nothing_to_report_writes_nothing(tmp_path):
    refresh(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_may_refresh_at_once(sweep):
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(refresh, [sweep] * 4))
    assert len(rows_of(sweep)) == 6
    written = {path.name for path in sweep.rglob("*") if path.is_file()} - {"result.json"}
    figures = ("pareto_front", "omega_average", "omega_gain")
    assert written == {"results.csv", "report.md", "report.html"} | {
        f"{name}.{kind}" for name in figures for kind in ("png", "pdf")
    } | {f"scores.{kind}" for kind in ("md", "tex", "csv")}


# Figures


def test_figures_are_whole_pictures(sweep):
    refresh(sweep)
    for path in (sweep / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width >= 600
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
    for path in (sweep / "figures").glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_a_report_is_due_when_missing_or_old(sweep):
    assert due(sweep)
    refresh(sweep)
    assert not due(sweep)
    os.utime(sweep / "report.md", (time.time() - 31,) * 2)
    assert due(sweep)
    assert not due(sweep, seconds=60)


def test_default_axes_are_the_sharpest_conflict(sweep):
    plane = front(collect(sweep))
    scores = np.array(list(POPULATION.values()))
    covariance = np.cov(scores.T)
    first, second = np.unravel_index(covariance.argmin(), covariance.shape)
    assert set(plane.axes) == {BENCHMARKS[first], BENCHMARKS[second]}


def test_front_of_two_benchmarks(sweep):
    plane = front(collect(sweep), ("humaneval", "gsm8k"))
    assert plane.line == ((0.25, 0.81), (0.32, 0.44), (0.52, 0.37), (0.93, 0.21))
    assert {point.name for point in plane.members if point.on_front} == {"math", "base", "code"}
    assert [point.name for point in plane.merged if point.on_front] == ["ties omega=0.2"]
    assert [point.plain for point in plane.merged] == [True, False, False, True, False]


def test_curves_have_their_null_lines(sweep):
    drawn = curves(collect(sweep))
    assert [(c.name, [job.record.omega for job in c.runs]) for c in drawn] == [
        ("ties", [0.2, 0.4]),
        ("dare_ties", [0.4]),
    ]
    assert [curve.null.folder for curve in drawn] == ["0", "3"]


def test_a_method_keeps_its_colour(sweep):
    styles = [method_style(method) for method in METHODS]
    assert len(set(styles)) == len({colour for colour, _ in styles}) == len(METHODS)
    assert method_style("a third party's") == method_style("a third party's")


def test_one_run_has_its_front_drawn(tmp_path):
    assert draw_run(record(), tmp_path) == tmp_path / "figures" / "pareto_front.png"
    assert draw_run(replace(record(), **UNSCORED), tmp_path) is None


# The command


def test_command_joins_directories(tmp_path, capsys):
    first = write_all(tmp_path / "a", record(omega=None))
    second = write_all(tmp_path / "b", record(), failed())
    out = tmp_path / "joined"
    assert main([str(first), str(second), "--out", str(out), "--axes", "mmlu", "math"]) == 0
    assert [row["job"] for row in rows_of(out)] == ["a/0", "b/0", "b/1"]
    assert (out / "figures" / "pareto_front.pdf").exists()
    assert "3 jobs, 2 scored, 1 failed" in capsys.readouterr().out
    assert not (first / "results.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["empty"], "no readable result.json"), (["missing"], "no such directory")],
)
def test_command_without_a_record_says_so_in_one_line(arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "aim_exp.report", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_unknown_axis_is_refused(sweep, capsys):
    assert main([str(sweep), "--axes", "mmlu", "chess"]) == 1
    assert "chess" in capsys.readouterr().err
    with pytest.raises(AimError, match="humaneval, mbpp"):
        rebuild(collect(sweep), sweep, axes=("chess", "mmlu"))
