"""The report of runs in Markdown, its command, and when it is written."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from records import MERGED, POPULATION, accuracies, failed, record, shifted, write_all

from aim_exp.errors import AimError
from aim_exp.report import draw_run, due, refresh, write
from aim_exp.report.__main__ import main
from aim_exp.report.load import load
from aim_exp.report.notes import notes
from aim_exp.report.rows import make_report

ITEMS = [accuracies(p, 150, 0) for p in MERGED]
MEMBERS = {name: [accuracies(p, 150, 0) for p in row] for name, row in POPULATION.items()}


@pytest.fixture
def sweep(tmp_path) -> Path:
    return write_all(
        tmp_path / "sweep",
        record("method=ties", "omega=null", scores=ITEMS, members=MEMBERS),
        record("method=ties", "omega=0.2", scores=ITEMS[::-1], members=MEMBERS),
        record("method=ties", "omega=0.4", scores=shifted(0.01)),
        record("method=dare_ties", "omega=null", scores=shifted(-0.04)),
        record("method=dare_ties", "omega=0.4", scores=shifted(-0.02)),
        failed("method.density=2: must lie in (0, 1]", "method.density=2"),
    )


def page_of(directory: Path) -> str:
    refresh(directory)
    return (directory / "report.md").read_text()


def note_lines(*records, directory: Path) -> list[str]:
    return notes(make_report(load(write_all(directory, *records))))


# The page


def test_page_tells_the_whole_story(sweep):
    page = page_of(sweep)
    titles = re.findall(r"^## (.*)", page, re.MULTILINE)
    assert titles == [
        "Leaderboard", "Population", "Against omega", "Against the plain merge", "Against base",
        "What was chosen", "Figures", "Tables for papers", "Failed",
        "How far to trust it", "How to repeat each", "Where this is from",
    ]  # fmt: skip
    board = page.split("## Leaderboard")[1].split("##")[0]
    assert re.findall(r"^\| (\d)", board, re.MULTILINE) == ["2", "0", "1", "4", "3"]
    assert "`5` (ties omega=0.4 density=2): method.density=2: must lie in (0, 1]" in page
    assert "python run.py method=dare_ties omega=null" in page
    links = re.findall(r"\(((?:figures|tables)/[^)]*)\)", page)
    assert len(links) == len(set(links)) >= 9
    assert all((sweep / link).stat().st_size for link in links)
    assert not re.search(r"\n\n\n", page), "no blank line stands twice"


def test_each_difference_has_its_interval_and_p(sweep):
    against = page_of(sweep).split("## Against the plain merge")[1].split("## ")[0]
    (row,) = re.findall(r"^\| 1 \| ties omega=0.2 .*", against, re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")[3:-1]]
    assert len(cells) == 2 + 6
    assert all(re.search(r"\(.* to .*; p .*\)$", cell) for cell in cells)
    assert any(cell.startswith("**") for cell in cells), "a claim that holds is bold"
    assert re.search(r"^- ties omega=0.2 is .* its plain merge", against, re.MULTILINE)


def test_page_without_any_score(tmp_path):
    page = page_of(write_all(tmp_path, failed("x\ny"), record("benchmarks=none", scores=None)))
    assert "2 jobs, 0 scored, 1 failed" in page
    assert "No merged model was scored." in page
    assert "`0` (ties omega=0.4 benchmarks=tiny): x y" in page
    assert not (tmp_path / "figures").exists()


def test_three_protocols_have_three_rows_everywhere(tmp_path):
    runs = [record(f"evaluator.max_length={n}", "omega=null", scores=shifted(n / 10_000))
            for n in (45, 52, 256)]  # fmt: skip
    page = page_of(write_all(tmp_path, *runs))
    board = page.split("## Leaderboard")[1].split("## Population")[0]
    assert re.findall(r"^### (.*)", board, re.MULTILINE) == [
        "[1] max_length=45", "[2] max_length=52", "[3] max_length=256",
    ]  # fmt: skip
    assert len(re.findall(r"^\| \d \| ties", board, re.MULTILINE)) == 3
    assert " n |" not in board


def test_texts_of_runs_are_no_markup(tmp_path):
    odd = "a <b>*x*</b> [l](javascript:x) | y"
    made = replace(record(), warnings=(odd,))
    page = page_of(write_all(tmp_path, made, failed(odd)))
    assert "<b>" not in page.replace(r"\<b\>", "")
    assert page.count(r"\<b\>\*x\*\</b\> [l\](javascript:x)") == 2


def test_a_join_is_told_in_short_names_with_their_key(tmp_path):
    first, second = (tmp_path / f"2026-01-0{day}_a_name_for_people_to_read" for day in (1, 2))
    write_all(first, record("omega=null"), record())
    write_all(second, record("population.seed=1", scores=shifted(0.1)))
    page = page_of(tmp_path)
    assert f"- S1: jobs of `{first.name}`" in page
    assert re.search(r"^### \[2\] .*\n\n(.*\n\n)?\| job \| method \|", page, re.MULTILINE)
    assert f"{first.name}/" not in page.replace(f"`{first.name}`", "")


def test_a_command_says_which_code_it_ran(tmp_path):
    code = {"method": "0123456789abcdef", "calibration": "fedcba9876543210"}
    page = page_of(write_all(tmp_path, record(), record("omega=0.2", code=code)))
    words = "code of method 0123456789ab, calibration fedcba987654, kept in shared/code/"
    assert f"# 1: {words}\npython run.py omega=0.2\n" in page
    assert page.count("kept in shared/code/") == 1


# What makes one look twice


@pytest.mark.parametrize("scaling", ["identity", "uniform"])
def test_the_control_is_asked_for_where_it_is_not_there(scaling, tmp_path):
    runs = record(), record("omega=0.2", f"aim.scaling={scaling}")
    (note,) = (n for n in note_lines(*runs, directory=tmp_path) if "embedded population" in n)
    asked_for = note.endswith("Run the control `aim.scaling=uniform` beside it.")
    assert asked_for is (scaling == "identity")


def test_differing_protocols_and_versions_are_named(tmp_path):
    limited = record("benchmarks.limit=20", versions={"torch": "2.9.1"}, device="cuda")
    lines = note_lines(record(), limited, directory=tmp_path)
    assert "torch differs: 2.13.0, 2.9.1: versions can change a score" in lines
    assert "device differs: cpu, cuda: that can change an answer here and there" in lines
    words = "2 populations or protocols, not to be compared: [1] limit=null, [2] limit=20; each has"
    assert any(line.startswith(words) for line in lines)


def test_different_models_with_equal_scores_are_named(tmp_path):
    lines = note_lines(record("omega=0.2"), record("omega=0.4"), directory=tmp_path)
    (line,) = (line for line in lines if "score exactly the same" in line)
    assert line.startswith("2 different models score exactly the same on every benchmark: 0 (ties")


def test_the_same_model_with_other_scores_is_named(tmp_path):
    again = record("method=ties", scores=shifted(0.1))
    lines = note_lines(record(), again, directory=tmp_path)
    words = (
        "merged on tiny_humaneval scored 50.0 in 0 and 60.0 in 1, the same weights asked the same"
    )
    assert words in lines


def test_one_seed_of_a_random_method_is_named(tmp_path):
    lines = note_lines(record("method=dare_ties"), directory=tmp_path)
    words = "dare_ties: random choices drawn with one `seed`; sweep it to see their spread."
    assert words in lines


def test_a_record_that_cannot_be_read_is_named_on_the_page(sweep):
    (sweep / "3" / "result.json").write_text("{")
    assert "3: result.json is not JSON" in page_of(sweep).split("## How far to trust it")[1]


# When it is written, and where


def test_nothing_to_report_writes_nothing(tmp_path):
    refresh(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_may_refresh_at_once(sweep):
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(refresh, [sweep] * 4))
    assert len(pd.read_csv(sweep / "results.csv")) == 6
    names = {path.name for path in sweep.rglob("*") if path.is_file()}
    assert not [name for name in names if name.startswith(".")]
    assert {
        "results.csv", "scores.csv", "differences.csv", "report.md", "report.html",
        "scores.md", "scores.tex", "pareto_front.png", "pareto_front.pdf",
    } <= names  # fmt: skip


def test_a_report_is_due_when_missing_or_old(sweep):
    assert due(sweep, 30)
    refresh(sweep)
    assert not due(sweep, 30)
    os.utime(sweep / "report.md", (time.time() - 31,) * 2)
    assert due(sweep, 30)
    assert not due(sweep, 60)


def test_one_run_has_its_front_drawn(tmp_path):
    write_all(tmp_path, record(), record("benchmarks=none", scores=None))
    assert draw_run(tmp_path / "0") == tmp_path / "0" / "figures" / "pareto_front.png"
    assert draw_run(tmp_path / "1") is None


# The command


def files_of(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_command_joins_directories(tmp_path, capsys):
    first = write_all(tmp_path / "a", record("omega=null"))
    second = write_all(tmp_path / "b", record(), failed())
    out = tmp_path / "joined"
    assert (
        main([str(first), str(second), "--out", str(out), "--axes", "tiny_mmlu", "tiny_math"]) == 0
    )
    assert len(pd.read_csv(out / "results.csv")) == 3
    assert (out / "figures" / "pareto_front.pdf").exists()
    assert "3 jobs, 2 scored, 1 failed" in capsys.readouterr().out
    assert not (first / "results.csv").exists()


def test_a_joined_report_has_a_place_of_its_own(tmp_path, capsys):
    first = write_all(tmp_path / "a", record("omega=null"))
    second = write_all(tmp_path / "b", record())
    refresh(first)
    before = files_of(first)
    assert main([str(first), str(second)]) == 0
    (joined,) = set(tmp_path.iterdir()) - {first, second}
    assert str(joined) in capsys.readouterr().out
    assert len(pd.read_csv(joined / "results.csv")) == 2
    assert main([str(second), str(first)]) == 0, "the same directories, the same place"
    assert set(tmp_path.iterdir()) == {first, second, joined}
    assert files_of(first) == before
    assert main([str(first), f"{first}/"]) == 0, "one directory, named twice"
    assert set(tmp_path.iterdir()) == {first, second, joined}


def test_a_question_of_its_own_leaves_the_report_as_it_is(sweep, tmp_path, capsys):
    assert main([str(sweep)]) == 0
    before = {path: text for path, text in files_of(sweep).items() if "shared" not in path.parts}
    for question in (["--against", "ties omega=0.2"], ["--by", "method"]):
        capsys.readouterr()
        assert main([str(sweep), *question]) == 0
        assert "verdict" in capsys.readouterr().out
        after = {path: text for path, text in files_of(sweep).items() if "shared" not in path.parts}
        assert after == before
    assert main([str(sweep), "--against", "ties omega=0.2", "--out", str(tmp_path / "own")]) == 0
    assert "## Against 1 (ties omega=0.2)" in (tmp_path / "own" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["empty"], "no readable result.json"), (["missing"], "no such directory")],
)
def test_command_without_a_record_says_so_in_one_line(arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "aim_exp.report", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert ended.returncode == 1
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_one_text_for_a_paper_at_a_time(sweep, capsys):
    with pytest.raises(SystemExit):
        main([str(sweep), "--methods-paragraph", "--published"])
    assert "--published: not allowed with argument --methods-paragraph" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(sweep), "--latex"])


def test_unknown_axis_is_refused(sweep, capsys):
    assert main([str(sweep), "--axes", "tiny_mmlu", "chess"]) == 1
    assert "chess" in capsys.readouterr().err
    report = make_report(load(sweep))
    with pytest.raises(AimError, match="tiny_humaneval, tiny_mbpp"):
        write(report, sweep, (), axes=("chess", "tiny_mmlu"))


def test_old_records_are_named_with_what_helps(sweep, capsys):
    content = json.loads((sweep / "3" / "result.json").read_text())
    (sweep / "3" / "result.json").write_text(json.dumps({**content, "schema_version": 1}))
    assert main([str(sweep)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "schema version" in line)
    assert line.startswith("warning: ")
    assert "repeat" in line
