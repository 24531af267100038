"""What processes do with a store: nothing of a living one goes, nothing of a killed one stays.

A process leaves a note in `ROOT/processes`: who it is, the folders that it writes in, the entries
that it uses. What it has not finished bears its mark (`files.unfinished`), so that it is known
wherever it lies, and so does the note, which goes with the process. That of a killed one stays, and
the next one removes both. A process counts as dead where its number says so, on its own machine;
elsewhere after a day without a sign of life.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path

from aim_exp.store.entries import BEGUN, LEASES, PARTIAL
from aim_exp.store.files import mark, marked_name, remove, unfinished
from aim_exp.store.leases import Holder, free, this_process, wait

PROCESSES = "processes"
WRITES, USES = "writes ", "uses "
"""What the lines of a note begin with."""
BEAT = 60.0
"""Seconds between signs of life."""
SILENCE = 86400.0
"""Seconds without one after which a process of another machine counts as dead."""


def note_work(root: Path, folder: Path) -> None:
    """Note that this process writes in `folder`, for as long as it lives.

    At its first note in the store at `root` it removes what dead ones left. A store that cannot be
    written has no notes.
    """
    _note(root, [f"{WRITES}{folder.absolute()}"])


@contextmanager
def using(root: Path, names: Iterable[str]) -> Iterator[None]:
    """As long as it lasts nobody deletes these entries, or what there will be of them.

    Where the store cannot be written nothing is noted, nor can anything be deleted there.
    """
    with suppress(OSError), settled(root):
        _note(root, [f"{USES}{name}" for name in sorted(names)])
    try:
        yield
    finally:
        with suppress(OSError):
            note = _own_note(root.resolve(), mark())
            lines = note.read_text().splitlines()
            _write(note, (line for line in lines if not line.startswith(USES)))


@contextmanager
def settled(root: Path) -> Iterator[None]:
    """As long as it lasts no other process notes what it uses, or deletes what is not used."""
    lease = wait(root / LEASES / PROCESSES, "what is used in the cache")
    assert lease
    try:
        yield
    finally:
        lease.release()


def used(root: Path) -> set[str]:
    """The names of the entries that living processes use."""
    names: set[str] = set()
    for note in (root / PROCESSES).glob("[!.]*"):
        with suppress(OSError, ValueError, TypeError):  # it ends just now
            process = _Process.read(note)
            if not process.is_dead(time.time()):
                names.update(process.uses)
    return names


def temporary_folder(what: str) -> tempfile.TemporaryDirectory[str]:
    """A folder for files that are of no use to another process, where the system has such."""
    return tempfile.TemporaryDirectory(prefix=f"aim-exp-{what}-{marked_name()}-")


@dataclass(frozen=True)
class _Process:
    """What its note says."""

    note: Path
    holder: Holder
    temporary: Path
    """Where it makes folders that are of no use to another process."""
    writes: tuple[Path, ...]
    uses: tuple[str, ...]

    @staticmethod
    def read(note: Path) -> _Process:
        first, *lines = note.read_text().splitlines() or ["{}"]
        holder = json.loads(first)
        temporary = Path(holder.pop("temporary"))
        writes, uses = (
            tuple(line.removeprefix(begin) for line in lines if line.startswith(begin))
            for begin in (WRITES, USES)
        )
        return _Process(note, Holder(**holder), temporary, tuple(map(Path, writes)), uses)

    def is_dead(self, now: float) -> bool:
        """By its number on this machine, elsewhere by its silence; `now` is the clock of notes."""
        return self.holder.is_dead or now - self.note.stat().st_mtime > SILENCE

    def clear(self, root: Path) -> None:
        """Remove what it left, and the note."""
        for path in self._unfinished(root):
            remove(path)
        for path in self.temporary.glob(f"aim-exp-*-{self.note.name}-*"):
            remove(path)
        for token in (root / LEASES).glob(f"*/{self.note.name}-*"):
            free(token.parent, token.name)
        remove(self.note)

    def _unfinished(self, root: Path) -> Iterator[Path]:
        """All that bears its mark, but what goes on when it is made again."""
        mark = self.note.name
        yield from root.glob(f"*/.{mark}-*")
        yield from root.glob(f"{PARTIAL}/*.{mark}-*")
        yield from root.glob(f"{BEGUN}/*/.{mark}-*")
        for folder in self.writes:
            yield from folder.rglob(f".{mark}-*")


def _note(root: Path, lines: Iterable[str]) -> None:
    """Add lines to this process's note, each once."""
    with suppress(OSError):
        note = _own_note(root.resolve(), mark())
        known = set(note.read_text().splitlines())
        with note.open("a") as file:
            file.writelines(f"{line}\n" for line in lines if line not in known)


def _write(note: Path, lines: Iterable[str]) -> None:
    """Whole or not at all: from one cut short nobody knows whose the files with its mark are."""
    with unfinished(note) as partial:
        partial.write_text("".join(f"{line}\n" for line in lines))
        partial.replace(note)


@cache
def _own_note(root: Path, name: str) -> Path:
    note, ended = root / PROCESSES / name, threading.Event()
    note.parent.mkdir(parents=True, exist_ok=True)
    holder = {**asdict(this_process()), "temporary": tempfile.gettempdir()}
    while not note.exists():
        with suppress(FileNotFoundError):  # another one took it for a killed one's, as below
            _write(note, [json.dumps(holder)])

    def beat() -> None:
        with suppress(OSError):
            while not ended.wait(BEAT):
                os.utime(note)

    def end() -> None:
        ended.set()
        remove(note)

    threading.Thread(target=beat, daemon=True).start()
    Finalize(None, end, exitpriority=-1)  # behind what still removes folders of its own
    now = note.stat().st_mtime  # by the clock that the others' have, too
    for other in note.parent.iterdir():
        if other.name.startswith("."):
            _remove_nobodys(other)
            continue
        with suppress(OSError, ValueError, TypeError, KeyError):
            process = _Process.read(other)
            if process.is_dead(now):
                process.clear(root)
    return note


def _remove_nobodys(partial: Path) -> None:
    """An unfinished note, where its process has none yet: it was killed, or writes it again."""
    if not partial.with_name(partial.name[1:].partition("-")[0]).exists():
        remove(partial)
