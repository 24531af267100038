"""What killed processes leave unfinished: the next one removes it, and no living process's."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from aim_exp.store.entries import Store
from aim_exp.store.files import marked_name, unfinished
from aim_exp.store.leases import this_process
from aim_exp.store.process_notes import SILENCE
from aim_exp.store.processes import note_work, temporary_folder, using
from aim_exp.store.stage_spec import StageSpec

DAY_OLD = SILENCE + 60


def work(root: Path, run: Path, begun: Path) -> None:
    """Be in the middle of everything, and say so in `begun`."""
    tempfile.tempdir = str(root.parent / "tmp")
    note_work(root, run)
    spec = StageSpec("stage", 1, {"by": begun.name})
    in_between = root / "leases" / f".{marked_name()}"
    in_between.mkdir(parents=True)
    deleted = root / "partial" / f".{marked_name()}"
    deleted.mkdir(parents=True)
    code = temporary_folder("code")

    def make(folder: Path) -> None:
        (folder / "half").touch()
        with (
            unfinished(run / "deep" / "result.json") as record,
            unfinished(run / "model") as model,
            unfinished(root / "digests" / "note") as note,
        ):
            for path in (record, note):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            (model / "inner").mkdir(parents=True)
            lease = root / "leases" / f"{spec.stage}-{spec.key}"
            paths = [folder, record, model, note, in_between, deleted, Path(code.name), lease]
            begun.write_text("\n".join(map(str, paths)))
            time.sleep(600)

    Store(root).get_or_make(spec, make)


Begin = Callable[[str], tuple[ForkProcess, list[Path]]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """A process that works, and what it has not finished."""
    processes = []
    (tmp_path / "tmp").mkdir()

    def begin(name: str) -> tuple[ForkProcess, list[Path]]:
        begun = tmp_path / name
        arguments = (tmp_path / "cache", tmp_path / f"run of {name}", begun)
        process = get_context("fork").Process(target=work, args=arguments)
        process.start()
        processes.append(process)
        while not begun.exists() or not begun.read_text():
            assert process.is_alive()
            time.sleep(0.02)
        return process, [Path(line) for line in begun.read_text().splitlines()]

    yield begin
    for process in processes:
        process.kill()
        process.join()


def test_the_next_process_removes_what_a_killed_one_left(begin: Begin, tmp_path: Path) -> None:
    killed, left = begin("killed")
    living, own = begin("living")
    assert len(left) == 8
    assert all(path.exists() for path in [*left, *own])
    killed.kill()
    killed.join()
    note_work(tmp_path / "cache", tmp_path)
    assert not [path for path in left if path.exists()]
    assert not list((tmp_path / "run of killed" / "deep").iterdir())
    assert all(path.exists() for path in own), "of a living process"
    assert living.is_alive()
    assert len(list((tmp_path / "cache" / "processes").iterdir())) == 2


@pytest.mark.parametrize(("age", "stays"), [(SILENCE - 60, True), (DAY_OLD, False)])
def test_a_process_elsewhere_is_dead_after_a_day(age: float, stays: bool, tmp_path: Path) -> None:
    cache, run = tmp_path / "cache", tmp_path / "run"
    note, model = cache / "processes" / "mark", run / ".mark-0"
    (run / "model").mkdir(parents=True)
    model.mkdir()
    note.parent.mkdir(parents=True)
    holder = asdict(replace(this_process(), host="gpu-07", pid=1))
    note.write_text(json.dumps({**holder, "temporary": "/tmp"}) + f"\nwrites {run}\n")
    then = time.time() - age
    os.utime(note, (then, then))
    note_work(cache, tmp_path)
    assert (note.exists(), model.exists()) == (stays, stays)
    assert (run / "model").exists()


def test_what_is_begun_goes_on_whoever_was_killed(tmp_path: Path) -> None:
    """Its folder stays, what was half written in it does not; a note cut short harms nothing."""
    cache = tmp_path / "cache"
    begun = cache / "begun" / "population-key.mark-0"
    (begun / ".mark-1").mkdir(parents=True)
    (begun / "base").mkdir()
    (cache / "processes").mkdir()
    dead = replace(this_process(), started="another")
    first = json.dumps({**asdict(dead), "temporary": str(tmp_path)})
    (cache / "processes" / "mark").write_text(f"{first}\n")
    (cache / "processes" / "cut").write_text('{"host": ')
    note_work(cache, tmp_path)
    assert {path.name for path in begun.iterdir()} == {"base"}
    assert not (cache / "processes" / "mark").exists()


def test_a_process_killed_at_its_note_leaves_a_whole_one_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "processes"
    note_work(tmp_path, tmp_path / "run")
    (own,) = notes.iterdir()
    before = own.read_text()

    def killed(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patch, using(tmp_path, ["stage-key"]):
        during = own.read_text()
        assert during == before + "uses stage-key\n"
        patch.setattr(Path, "replace", killed)
    assert own.read_text() == during
    with using(tmp_path, ["another-key"]):
        assert "uses another-key" in own.read_text()
    assert own.read_text() == before
    (notes / ".killed-0").touch()  # at its first note
    (notes / f".{own.name}-0").touch()  # a living one's
    begun = get_context("fork").Process(target=note_work, args=(tmp_path, tmp_path))
    begun.start()
    begun.join()
    assert {path.name for path in notes.iterdir()} == {own.name, f".{own.name}-0"}
