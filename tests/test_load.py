"""Directories to runs: every job asked for, and one line for what cannot be read."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records import accuracies, failed, record, write_all

from aim_exp.errors import AimError
from aim_exp.report.csv_files import difference_rows, result_rows
from aim_exp.report.differences import differences
from aim_exp.report.frames import results
from aim_exp.report.load import load
from aim_exp.report.rows import make_report

ODD: tuple[Any, ...] = (None, "text", 7, -1.5, [], {}, [1], True)


def test_every_job_asked_for_is_there_in_its_order(tmp_path: Path) -> None:
    write_all(tmp_path, *[record()] * 11, failed(), asked_for=14)
    runs = load(tmp_path)
    assert [job.name for job in runs.jobs] == [str(number) for number in range(14)]
    assert [job.status for job in runs.jobs] == ["completed"] * 11 + ["failed"] + ["not run"] * 2
    assert runs.problems == ()
    assert {job.sweep for job in runs.jobs} == {"."}


def test_a_job_with_a_folder_and_no_record_was_not_run(tmp_path: Path) -> None:
    write_all(tmp_path, record(), asked_for=2)
    (tmp_path / "1").mkdir()
    assert [job.status for job in load(tmp_path).jobs] == ["completed", "not run"]
    frame = results(tmp_path)
    assert list(frame[frame.job == "1"].status) == ["not run"]


def test_several_sweeps_are_joined_below_what_they_have_in_common(tmp_path: Path) -> None:
    first = write_all(tmp_path / "2026-01-02_12-00-00_ab12", record())
    second = write_all(tmp_path / "2026-01-03_12-00-00_cd34", record("omega=null"), record())
    runs = load(first, second, first)
    assert [job.title for job in runs.jobs] == ["S1/0", "S2/0", "S2/1"]
    assert runs.sweeps == {"S1": first.name, "S2": second.name}
    assert [job.shared for job in runs.jobs] == [first / "shared", *[second / "shared"] * 2]
    (job,) = load(first / "0").jobs
    assert (job.name, job.sweep, job.status) == (".", ".", "completed")


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    write_all(tmp_path, *[record()] * 6)
    (tmp_path / "3" / "result.json").write_text("{")
    old = json.loads((tmp_path / "4" / "result.json").read_text())
    (tmp_path / "4" / "result.json").write_text(json.dumps({**old, "schema_version": 1}))
    (line,) = load(tmp_path).problems
    assert line.startswith(
        "4 of 6 runs read; 3: result.json is not JSON; 4: result.json has schema"
    )
    assert "repeat its command" in line
    (tmp_path / "sweep.json").write_text("[]")
    assert len(load(tmp_path).problems) == 2


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AimError, match="nowhere: no such directory"):
        load(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain merge and a relaxed one, with items."""
    members = {"base": [accuracies(0.3, 12)] * 6, "a": [accuracies(0.5, 12)] * 6}
    rows = [[accuracies(share, 12)] * 6 for share in (0.4, 0.6)]
    made = [record(f"omega={omega}", members=members, scores=row)
            for omega, row in zip(("null", 0.4), rows, strict=True)]  # fmt: skip
    return write_all(tmp_path_factory.mktemp("sweep"), *made)


def places(node: Any, depth: int = 5) -> Iterator[tuple[Any, Any]]:
    """Every container in a record with a key of it; of lists, the first entry."""
    keys = list(node) if isinstance(node, dict) else [0] if isinstance(node, list) and node else []
    for key in keys:
        yield node, key
        if depth:
            yield from places(node[key], depth - 1)


def mutations(text: str) -> Iterator[str]:
    """A third of its parts, left out or odd in turn; then what is no record at all."""
    count = len(list(places(json.loads(text))))
    for number in range(count):
        odd = "without" if number % 2 else ODD[number // 2 % len(ODD)]
        if number % 3 == 0:
            content = json.loads(text)
            node, key = list(places(content))[number]
            if odd == "without":
                del node[key]
            else:
                node[key] = odd
            yield json.dumps(content)
    yield from ("", "[]", "null", "{}", text[: len(text) // 2], "[" * 100_000, '{"a": NaN}', "\0")


def test_no_mutation_of_a_record_ends_in_a_traceback(sweep: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sweep, tmp_path / "copy")
    text = (sweep / "1" / "result.json").read_text()
    tried = refused = 0
    for mutated in mutations(text):
        (copy / "1" / "result.json").write_text(mutated)
        runs = load(copy)
        made = make_report(runs)
        result_rows(made)
        difference_rows(differences(made))
        assert len(runs.jobs) == 2
        assert all("\n" not in line for line in runs.problems)
        refused += bool(runs.problems)
        tried += 1
    assert tried > 100
    assert refused > 30
