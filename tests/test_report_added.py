"""`--add FILE`: models that were scored elsewhere, in tables, fronts and tests."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest
from pages import Page
from records import record, write_all
from test_report_items import AFTER, ONE, pair

from aim_exp.report.__main__ import main
from aim_exp.report.added import with_added
from aim_exp.report.differences import differences
from aim_exp.report.items import read_items
from aim_exp.report.load import load
from aim_exp.report.plots import make_charts
from aim_exp.report.rows import make_report

N = len(AFTER)


def write(path: Path, scores: Sequence[float], model: str = "theirs", **changed) -> Path:
    lines = [
        {"model": model, "benchmark": "x", "item": item, "score": score} | changed
        for item, score in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_model_with_a_runs_scores_has_its_numbers(tmp_path: Path) -> None:
    """Score, error, gain, place on the front, and every test against base."""
    file = write(tmp_path / "theirs.jsonl", AFTER)
    sweep = write_all(tmp_path / "sweep", *pair())
    report = make_report(with_added(load(sweep), file))
    (group,) = report.groups
    _, run, theirs = group.merges
    assert (theirs.titles, theirs.label) == ("theirs", "theirs omega=null")
    assert theirs.estimates["x"].stderr == pytest.approx(run.estimates["x"].stderr, rel=0.02)
    for name, estimate in run.estimates.items():
        assert theirs.estimates[name].mean == pytest.approx(estimate.mean)
    assert theirs.on_front == run.on_front is True
    _, against_base = differences(report)
    _, own, its = against_base.contrasts
    assert (own.label, its.label) == ("ties omega=0.4", "theirs omega=null")
    assert its.differences == own.differences
    assert its.average.test


def test_it_stands_in_everything_that_is_written(tmp_path: Path) -> None:
    file = write(tmp_path / "theirs.jsonl", AFTER)
    sweep = write_all(tmp_path / "sweep", *pair())
    out = tmp_path / "out"
    assert main([str(sweep), "--add", str(file), "--out", str(out)]) == 0
    for name in ("report.md", "results.csv", "scores.csv", "differences.csv", "tables/scores.tex"):
        assert "theirs" in (out / name).read_text(), name
    page = Page((out / "report.html").read_text())
    assert page.data["items"]["models"][-1]["label"] == "theirs omega=null"
    assert [row["label"] for row in page.data["rows"]].count("theirs omega=null") == 1
    assert main([str(sweep), "--add", str(file), "--items", "base", "theirs"]) == 0


def test_two_benchmarks_have_a_front(tmp_path: Path) -> None:
    two = "benchmarks.tasks={x: {task: t, metric: 'm,none'}, y: {task: u, metric: 'm,none'}}"
    answers = [AFTER, AFTER[::-1]]
    members = {"base": answers, "a": [AFTER[::-1], AFTER]}
    sweep = write_all(tmp_path / "sweep", record(two, scores=answers, members=members))
    best = write(tmp_path / "x.jsonl", [1] * N).read_text()
    file = tmp_path / "both.jsonl"
    file.write_text(best + write(tmp_path / "y.jsonl", [1] * N, benchmark="y").read_text())
    (plane,) = make_charts(make_report(with_added(load(sweep), file))).planes
    assert [row.label for row in plane.front] == ["theirs omega=null"]


def test_items_of_several_tasks_and_parts(tmp_path: Path) -> None:
    """As in a group, and as IFEval's instructions: a prompt has as many parts as it has."""
    (sweep := tmp_path / "sweep").mkdir()
    made = record(ONE, scores=[AFTER], members={"base": [AFTER], "a": [AFTER[::-1]]})
    write_all(sweep, made)
    base = Path(load(sweep).jobs[0].sources["base"]["x"].file)
    lines = [json.loads(line) for line in gzip.decompress(base.read_bytes()).splitlines()]
    parts = [1 + item % 3 for item in range(N)]
    for item, (line, n) in enumerate(zip(lines, parts, strict=True)):
        line |= {"task": "ab"[item % 2], "doc_id": item // 2, "metrics": {"m": [True] * n}}
    base.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    result = sweep / "0" / "result.json"
    content = json.loads(result.read_text())
    content["models"][0]["scores"]["x"]["value"] = 1.0
    result.write_text(json.dumps(content))
    file = tmp_path / "theirs.jsonl"
    file.write_text("".join(
        json.dumps({"model": "theirs", "benchmark": "x", "score": AFTER[item],
                    "item": f"{'ab'[item % 2]} {item // 2}"}) + "\n"
        for item in range(N)
    ))  # fmt: skip
    job = with_added(load(sweep), file).jobs[-1]
    items = read_items(job.sources["merged"]["x"])
    assert items.possible[:, 0].tolist() == [*parts[::2], *parts[1::2]]
    both = [list(zip(parts, AFTER, strict=True))[start::2] for start in (0, 1)]
    shares = [sum(n for n, score in task if score) / sum(n for n, _ in task) for task in both]
    assert items.score == pytest.approx(fmean(shares)), "of each task, by their sizes"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"model": "m"}', "line 1: benchmark: Field required"),
        ("[", "line 1: Invalid JSON"),
        ("", "has no lines"),
        ('{"model": "m", "benchmark": "y", "item": 0, "score": 1}',
         "m: y is no benchmark of these runs"),
        ('{"model": "m", "benchmark": "x", "item": 0, "score": 1}\n' * 2,
         "line 2: item 0 of x is there twice"),
        ('{"model": "m", "benchmark": "x", "item": 0, "score": 1}',
         "m on x: 39 items are missing: 1, 10, 11, 12 and 35 more"),
        ('{"model": "base", "benchmark": "x", "item": 0, "score": 1}',
         "base is a model or a run here; give it another name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(text: str, error: str, tmp_path: Path, capsys) -> None:
    sweep, file = write_all(tmp_path / "sweep", *pair()), tmp_path / "theirs.jsonl"
    file.write_text(text)
    assert main([str(sweep), "--add", str(file)]) == 1
    assert error in capsys.readouterr().err
    write(file, [*AFTER, 1])
    assert main([str(sweep), "--add", str(file)]) == 1
    assert "theirs on x: 1 items are not those of these runs: 40" in capsys.readouterr().err
    write(file, [2, *AFTER[1:]])
    assert main([str(sweep), "--add", str(file)]) == 1
    assert "theirs on x: item 0: 2 is not in 0 to 1" in capsys.readouterr().err


def test_runs_of_several_populations_are_refused(tmp_path: Path, capsys) -> None:
    """Whose items and whose base it would be compared with is not known."""
    runs = [record(ONE, f"population.seed={n}", scores=[AFTER]) for n in range(2)]
    sweep = write_all(tmp_path / "sweep", *runs)
    assert main([str(sweep), "--add", str(write(tmp_path / "theirs.jsonl", AFTER))]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "these runs have 2 (population.seed); give the runs of one" in error
