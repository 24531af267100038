"""How a store keeps what was made, whoever else writes there."""

import fcntl
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aim_exp.store import leases
from aim_exp.store.entries import Store
from aim_exp.store.files import whole_folder
from aim_exp.store.integrity import seal
from aim_exp.store.stage_spec import StageSpec

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
    assert sorted(path.name for path in entry.iterdir()) == [
        "digests.json",
        "made.json",
        "spec.json",
        "whole",
    ]


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
    made = ["digests.json", "first", "made.json", "second", "spec.json"]
    assert sorted(path.name for path in entry.iterdir()) == made
    assert not list((tmp_path / "begun").iterdir())


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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become tenths; and the file system has no locks, as some of a network's."""
    monkeypatch.setattr(leases, "BEAT", 0.05)
    monkeypatch.setattr(leases, "SILENCE", 0.5)
    monkeypatch.setattr(leases, "WORTH_A_LINE", 0.1)

    def no_locks(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, no_locks)


def lease_of(root: Path) -> Path:
    return root / "leases" / f"{SPEC.stage}-{SPEC.key}"


def held_by(root: Path, host: str, *, beating: threading.Event | None = None) -> None:
    """A lease as another machine's process leaves it, with a sign of life until `beating` ends."""
    lease = lease_of(root)
    lease.mkdir(parents=True)

    def sign(count: int) -> None:
        holder = {"host": host, "space": "", "pid": 7, "started": "", "beat": count}
        (lease / "token").write_text(json.dumps(holder))

    sign(0)

    def beat() -> None:
        count = 0
        while beating and not beating.wait(0.1):
            count += 1
            sign(count)

    if beating:
        threading.Thread(target=beat, daemon=True).start()


@pytest.mark.usefixtures("impatient")
def test_a_silent_holder_is_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held_by(tmp_path, "gpu-07")
    began = time.monotonic()
    Store(tmp_path).get_or_make(SPEC, lambda folder: None)
    assert 0.5 <= time.monotonic() - began < 5
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"waiting for gpu-07 (process 7): {SPEC.title}",
        f"warning: gpu-07 (process 7) gave no sign of life for 0.5 s: taking over: {SPEC.title}",
    ]
    assert not list((tmp_path / "leases").iterdir())


@pytest.mark.usefixtures("impatient")
def test_a_living_holder_is_waited_for(tmp_path: Path) -> None:
    ended = threading.Event()
    held_by(tmp_path, "gpu-07", beating=ended)
    store = Store(tmp_path)

    def publish() -> None:
        store.path(SPEC).mkdir(parents=True)
        seal(store.path(SPEC), SPEC.name)
        ended.set()

    threading.Timer(1.5, publish).start()
    store.get_or_make(SPEC, lambda folder: pytest.fail("it is made already"))
    assert store.waited > 1.4


@pytest.mark.usefixtures("impatient")
def test_who_was_taken_over_cannot_publish(tmp_path: Path) -> None:
    """The holder falls silent in the middle of its work, and wakes when another has its lease."""
    slow, quick = Store(tmp_path), Store(tmp_path)
    published: list[Path] = []

    def make_slowly(folder: Path) -> None:
        (folder / "slow").touch()
        lease = lease_of(tmp_path)
        (own,) = lease.iterdir()
        holder = json.loads(own.read_text()) | {"host": "gpu-07"}
        own.unlink()  # no sign of life can be given from here on
        (lease / "silent").write_text(json.dumps(holder))
        published.append(quick.get_or_make(SPEC, lambda folder: (folder / "quick").touch()))

    (entry,) = {slow.get_or_make(SPEC, make_slowly), *published}
    assert {path.name for path in entry.iterdir()} == {
        "digests.json", "made.json", "quick", "spec.json",
    }  # fmt: skip
    assert not list((tmp_path / "partial").iterdir())


@pytest.mark.usefixtures("impatient")
def test_a_taken_over_entry_that_resumes_goes_on(tmp_path: Path) -> None:
    held_by(tmp_path, "gpu-07")
    left = tmp_path / "begun" / f"{SPEC.stage}-{SPEC.key}.token"
    left.mkdir(parents=True)
    (left / "first").touch()
    entry = Store(tmp_path).get_or_make(SPEC, lambda folder: None, resumes=True)
    assert (entry / "first").exists()
    assert not list((tmp_path / "begun").iterdir())


def test_of_a_dead_process_of_this_machine_nobody_waits(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time, test_store as t;"
        "t.Store(pathlib.Path(sys.argv[1])).get_or_make(t.SPEC, lambda folder: time.sleep(60))"
    )
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment) as maker:
        while not list(tmp_path.glob("partial/*")):
            time.sleep(0.05)
        (sign,) = lease_of(tmp_path).iterdir()
        assert json.loads(sign.read_text())["host"] == socket.gethostname()
        maker.send_signal(signal.SIGKILL)
    began = time.monotonic()
    Store(tmp_path).get_or_make(SPEC, lambda folder: None)
    assert time.monotonic() - began < 5


def test_of_many_threads_one_holds(tmp_path: Path) -> None:
    inside, most, done = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, done
        for _ in range(5):
            lease = leases.wait(tmp_path / "lease", "work")
            assert lease
            inside += 1
            most = max(most, inside)
            time.sleep(0.002)
            inside -= 1
            done += 1
            lease.release()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == (1, 100)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_taken_over_does_not_come_back(tmp_path: Path) -> None:
    """Who goes on writing there fails, and publishes no part of it as the whole."""
    taken = tmp_path / "taken"
    with pytest.raises(FileNotFoundError), whole_folder(taken / "base"):
        pass
    assert not taken.exists()
