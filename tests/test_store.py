"""How a store keeps what was made."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from aim_exp.store.entries import Store
from aim_exp.store.keys import StageSpec

SPEC = StageSpec("stage", 1, {"a": 1})


def test_an_entry_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.get_or_make(SPEC, broken)
    assert not store.has(SPEC)
    assert not list((tmp_path / "partial").iterdir())
    entry = store.get_or_make(SPEC, lambda folder: (folder / "whole").touch())
    assert sorted(path.name for path in entry.iterdir()) == ["made.json", "spec.json", "whole"]


def test_an_entry_that_resumes_keeps_what_was_done(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make(folder: Path) -> None:
        (folder / "second").touch() if (folder / "first").exists() else (folder / "first").touch()
        if not (folder / "second").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_make(SPEC, make, resumes=True)
    assert not store.has(SPEC)
    entry = store.get_or_make(SPEC, make, resumes=True)
    made = ["first", "made.json", "second", "spec.json"]
    assert sorted(path.name for path in entry.iterdir()) == made
    assert not list((tmp_path / "partial").iterdir())


def test_an_entry_knows_what_it_took_and_where(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.made(SPEC) is None
    store.get_or_make(SPEC, lambda folder: time.sleep(0.2))
    made = store.made(SPEC)
    assert made
    assert 0.2 <= made.seconds < 5
    assert made.machine.endswith("GiB of memory") or " x " in made.machine
    assert f"{os.cpu_count()} processors" in made.machine
    store.get_or_make(SPEC, lambda folder: time.sleep(9))
    assert store.made(SPEC) == made

    earlier, began = StageSpec("stage", 1, {"a": 2}), time.monotonic() - 100
    store.get_or_make(earlier, lambda folder: None, since=began)
    made = store.made(earlier)
    assert made
    assert 100 <= made.seconds < 105


def make_slowly(root: Path) -> None:
    def make(folder: Path) -> None:
        with (root / "made").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)

    Store(root).get_or_make(SPEC, make)


def test_of_many_processes_one_makes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=make_slowly, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len((tmp_path / "made").read_text().split()) == 1
