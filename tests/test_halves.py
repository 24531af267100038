"""Choosing on one half of the items and reporting on the other."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aim_exp.report import refresh
from aim_exp.report.compare.halves import choices
from aim_exp.report.results import collect
from aim_exp.store.records import RunRecord, read_record


def write(folder: Path, method: str, omega: float | None, even: float, odd: float) -> None:
    """A run whose even items score `even` and whose odd ones score `odd`, of 20."""
    folder.mkdir(parents=True)
    lines = [
        {"doc_id": i, "filter": f, "metrics": {"acc": float((i // 2) / 10 < share) * (f == "none")}}
        for i in range(20)
        for f, share in (("none", odd if i % 2 else even), ("strict", 0))
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    score = (even + odd) / 2
    RunRecord(
        method=method,
        omega=omega,
        population={"name": "p", "merged": ["a"]},
        suite="s",
        benchmarks={"x": {"task": "t", "metric": "acc,none", "reference_point": 0.0}},
        scores={"x": score},
        stderr={"x": 0.1},
        population_scores={"base": {"x": 0.1}, "a": {"x": 0.2}},
        items={"merged": {"x": str(folder / "items.jsonl")}},
        average=score,
    ).write(folder)


def test_protocols_are_no_candidates_of_one_choice(tmp_path: Path) -> None:
    """On few items all score more."""
    for limit, more in ((20, 0.3), (None, 0.0)):
        for omega in (None, 0.4):
            folder = tmp_path / f"{limit}-{omega}"
            write(folder, "ties", omega, even=0.5 + more, odd=0.4 + more)
            made = read_record(folder)
            about = {"x": {**made.benchmarks["x"], "protocol": {"limit": limit}}}
            replace(made, benchmarks=about).write(folder)
    found = {choice.name: choice for choice in choices(collect(tmp_path))}
    assert {name: each.candidates for name, each in found.items()} == {"ties [1]": 2, "ties [2]": 2}
    assert found["ties [1]"].average_on_all == pytest.approx(0.75)
    assert found["ties [2]"].average_on_all == pytest.approx(0.45)


def test_the_choice_is_made_on_half_and_reported_on_the_other(tmp_path: Path) -> None:
    write(tmp_path / "0", "ties", None, even=0.5, odd=0.5)
    write(tmp_path / "1", "ties", 0.4, even=0.9, odd=0.2)  # lucky on the even items
    write(tmp_path / "2", "ties", 0.6, even=0.6, odd=0.7)  # the best on all
    write(tmp_path / "3", "dare_ties", 0.4, even=0.3, odd=0.3)  # no other candidate
    (choice,) = choices(collect(tmp_path))
    assert choice.candidates == 3
    assert choice.best_on_all.record.omega == 0.6
    assert choice.average_on_all == pytest.approx(0.65)
    assert choice.chosen.record.omega == 0.4
    assert choice.average_when_chosen == pytest.approx(0.9)
    assert choice.average_reported == pytest.approx(0.2)
    refresh(tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "Chosen on every second item it is" in (tmp_path / "report.html").read_text()
    assert "† chosen on its own test items" in page
    assert "| 3 of ties | ties omega=0.6 † | 65.0 | ties omega=0.4 | 90.0 | **20.0** |" in page


def test_a_repeated_value_is_one_candidate(tmp_path: Path) -> None:
    for job, (omega, key) in enumerate([(None, "p"), (0.4, "r"), (0.4, "r")]):
        folder = tmp_path / str(job)
        write(folder, "ties", omega, 0.5, 0.4)
        replace(read_record(folder), keys={"responses": {"merged": key}}).write(folder)
    (choice,) = choices(collect(tmp_path))
    assert choice.candidates == 2


def test_without_items_there_is_no_choice(tmp_path: Path) -> None:
    for job, omega in enumerate((None, 0.4)):
        write(tmp_path / str(job), "ties", omega, 0.5, 0.5)
    (tmp_path / "1" / "items.jsonl").unlink()
    assert choices(collect(tmp_path)) == []
