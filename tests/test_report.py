"""Records to results.csv, a page and its figures: what is in them, and when they are written."""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from records import (
    BENCHMARKS,
    POPULATION,
    UNSCORED,
    by_benchmark,
    failed,
    printed,
    record,
    rows_of,
    shifted,
    write_all,
)

from aim_exp.errors import AimError
from aim_exp.report import draw_run, due, rebuild, refresh, show_sweep
from aim_exp.report.__main__ import main
from aim_exp.report.figures import captions as figure_captions
from aim_exp.report.figures.style import METHODS, method_style
from aim_exp.report.notes import notes
from aim_exp.report.plots import front, series
from aim_exp.report.results import collect


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
    text = printed(partial(show_sweep, tmp_path))
    assert re.findall(r"^\[\d\] .*", text, re.MULTILINE) == ["[1] (1 job: 0)", "[2] (1 job: 1)"]


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


def test_a_report_is_due_when_missing_or_old(sweep):
    assert due(sweep)
    refresh(sweep)
    assert not due(sweep)
    os.utime(sweep / "report.md", (time.time() - 31,) * 2)
    assert due(sweep)
    assert not due(sweep, seconds=60)


# Figures


def test_figures_are_whole_pictures(sweep):
    refresh(sweep)
    for path in (sweep / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width >= 600
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
    for path in (sweep / "figures").glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_default_axes_are_the_sharpest_conflict(sweep):
    plane = front(collect(sweep))
    scores = np.array(list(POPULATION.values()))
    covariance = np.cov(scores.T)
    first, second = np.unravel_index(covariance.argmin(), covariance.shape)
    assert set(plane.axes) == {BENCHMARKS[first], BENCHMARKS[second]}


def test_front_of_two_benchmarks(sweep):
    found = front(collect(sweep), ("humaneval", "gsm8k"))
    assert found
    (plane,) = found.planes
    assert plane.line == ((0.25, 0.81), (0.32, 0.44), (0.52, 0.37), (0.93, 0.21))
    assert {point.name for point in plane.members if point.on_front} == {"math", "base", "code"}
    assert [point.name for point in plane.merged if point.on_front] == ["ties omega=0.2"]
    assert [point.plain for point in plane.merged] == [True, False, False, True, False]


def test_curves_have_their_null_lines(sweep):
    drawn = series(collect(sweep))
    assert [(each.name, [run.first.record.omega for run in each.runs]) for each in drawn] == [
        ("ties", [0.2, 0.4]),
        ("dare_ties", [0.4]),
    ]
    assert [each.null.first.folder for each in drawn] == ["0", "3"]


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


def test_a_joined_report_has_a_place_of_its_own(tmp_path, capsys):
    first = write_all(tmp_path / "a", record(omega=None))
    second = write_all(tmp_path / "b", record())
    refresh(first)
    before = {path: path.read_bytes() for path in sorted(first.rglob("*")) if path.is_file()}
    assert main([str(first), str(second)]) == 0
    (joined,) = set(tmp_path.iterdir()) - {first, second}
    assert str(joined) in capsys.readouterr().out
    assert [row["job"] for row in rows_of(joined)] == ["a/0", "b/0"]
    assert main([str(second), str(first)]) == 0, "the same directories, the same place"
    assert main([str(first), f"{first}/"]) == 0, "one directory, named twice"
    assert set(tmp_path.iterdir()) == {first, second, joined}
    assert before.keys() == {path for path in first.rglob("*") if path.is_file()}
    assert main([str(first), str(joined)]) == 0, "a report is no run"


def test_a_join_is_told_in_short_names_with_their_key(tmp_path):
    first, second = (tmp_path / f"2026-01-0{day}_a_name_for_people_to_read" for day in (1, 2))
    write_all(first, record(omega=None), record())
    other = {name: {key: value / 2 for key, value in scores.items()}
             for name, scores in record().population_scores.items()}  # fmt: skip
    write_all(second, record(population_scores=other))
    rebuild(collect(tmp_path), tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert f"- S1: jobs of `{first.name}`" in page
    assert "- [2]: (1 job: S2/0)" in page
    assert "### [2] (1 job: S2/0)\n\n| job | method |" in page
    assert f"{first.name}/" not in page.replace(f"`{first.name}`", "")


@pytest.mark.parametrize(
    ("omegas", "said", "unsaid"),
    [
        ((None, 0.4), ["from a plain merge (hollow)", "Dashed: the plain merge", "Change:"], []),
        ((0.2, 0.4), ["Thin lines lead through"], ["plain merge", "Change:", "ithout"]),
        ((None,), ["Dashed: the plain merge"], ["Thin lines", "Change:", "with AIM", "faint"]),
    ],
    ids=["both", "only AIM", "only plain"],
)
def test_captions_speak_of_what_there_is(omegas, said, unsaid, tmp_path):
    directory = write_all(tmp_path, *(record(omega=omega) for omega in omegas))
    refresh(directory)
    captions = " ".join(figure_captions(collect(directory)).values())
    page = (directory / "report.html").read_text().split("</main>")[0]
    legends = " ".join(page.split("<figcaption>")[1:])
    table = (directory / "tables" / "scores.md").read_text().splitlines()[0]
    assert all(words in captions + table for words in said)
    assert not any(words in captions + table for words in unsaid)
    assert ("plain merge" in legends) is (None in omegas)
    assert "dots" not in captions, "no seed was swept"


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


def test_one_text_for_a_paper_at_a_time(sweep, capsys):
    with pytest.raises(SystemExit):
        main([str(sweep), "--methods-paragraph", "--published"])
    assert "--published: not allowed with argument --methods-paragraph" in capsys.readouterr().err


@pytest.mark.parametrize("scaling", ["identity", "uniform"])
def test_the_control_is_asked_for_where_it_is_not_there(scaling, tmp_path):
    aim = {"statistic": "mean_abs", "scaling": scaling}
    directory = write_all(tmp_path, record(), record(omega=0.2, aim=aim))
    (note,) = (note for note in notes(collect(directory)) if "embedded population" in note)
    assert note.endswith("Run the control `aim.scaling=uniform` beside it.") is (
        scaling == "identity"
    )


def test_a_command_says_which_code_it_ran(tmp_path):
    code = {"method": "0123456789abcdef", "calibration": "fedcba9876543210"}
    refresh(write_all(tmp_path, record(), record(omega=0.2, code=code, command="python run.py x")))
    page = (tmp_path / "report.md").read_text()
    words = "code of method 0123456789ab, calibration fedcba987654, kept in its code/"
    assert f"# 1: {words}\npython run.py x\n" in page
    assert page.count("kept in its code/") == 1


def test_unknown_axis_is_refused(sweep, capsys):
    assert main([str(sweep), "--axes", "mmlu", "chess"]) == 1
    assert "chess" in capsys.readouterr().err
    with pytest.raises(AimError, match="humaneval, mbpp"):
        rebuild(collect(sweep), sweep, axes=("chess", "mmlu"))
