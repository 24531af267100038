"""Which processes are at work in a store, and with what: nobody deletes what a living one uses.

A process leaves a note, which goes with it; that of a killed one stays. With its first note in a
store a process removes what killed ones left there: `leftovers`.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path

from aim_exp.store.entries import LEASES
from aim_exp.store.files import mark, marked_name, remove, unfinished
from aim_exp.store.leases import this_process, wait
from aim_exp.store.leftovers import remove_leftovers
from aim_exp.store.process_notes import PROCESSES, USES, WRITES, ProcessNote

BEAT = 60.0
"""Seconds between signs of life."""


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
    for path in (root / PROCESSES).glob("[!.]*"):
        with suppress(OSError, ValueError, TypeError):  # it ends just now
            note = ProcessNote.read(path)
            if not note.is_dead(time.time()):
                names.update(note.uses)
    return names


def temporary_folder(what: str) -> tempfile.TemporaryDirectory[str]:
    """A folder for files that are of no use to another process, where the system has such."""
    return tempfile.TemporaryDirectory(prefix=f"aim-exp-{what}-{marked_name()}-")


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
        with suppress(FileNotFoundError):  # another one took it for a killed one's: `leftovers`
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
    remove_leftovers(root, now=note.stat().st_mtime)  # by the clock that the others' have, too
    return note
