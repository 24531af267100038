"""What killed processes left unfinished, removed by the next one, and no living process's.

A process leaves a note in `ROOT/processes`: who it is, and the folders that it writes in. What it
has not finished bears its mark (`files.unfinished`), so that it is known wherever it lies, and so
does the note, which goes with the process. That of a killed one stays. A process counts as dead
where its number says so, on its own machine; elsewhere after a day without a sign of life.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path

from aim_exp.store.entries import BEGUN, LEASES, PARTIAL
from aim_exp.store.files import mark, marked_name, remove
from aim_exp.store.leases import Holder, free, this_process

PROCESSES = "processes"
BEAT = 60.0
"""Seconds between signs of life."""
SILENCE = 86400.0
"""Seconds without one after which a process of another machine counts as dead."""


def note_work(root: Path, folder: Path) -> None:
    """Note that this process writes in `folder`, for as long as it lives.

    At its first note in the store at `root` it removes what dead ones left. A store that cannot be
    written has no notes.
    """
    with suppress(OSError):
        note = _own_note(root.resolve(), mark())
        line = f"{folder.absolute()}\n"
        if line not in note.read_text():
            with note.open("a") as file:
                file.write(line)


def temporary_folder(what: str) -> tempfile.TemporaryDirectory[str]:
    """A folder for files that are of no use to another process, where the system has such."""
    return tempfile.TemporaryDirectory(prefix=f"aim-exp-{what}-{marked_name()}-")


@cache
def _own_note(root: Path, name: str) -> Path:
    note, ended = root / PROCESSES / name, threading.Event()
    note.parent.mkdir(parents=True, exist_ok=True)
    holder = {**asdict(this_process()), "temporary": tempfile.gettempdir()}
    note.write_text(json.dumps(holder) + "\n")

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
        with suppress(OSError, ValueError, TypeError):
            _clear(root, other, silent=now - other.stat().st_mtime > SILENCE)
    return note


def _clear(root: Path, note: Path, *, silent: bool) -> None:
    """Remove what the process of that note left, and the note, if it is dead."""
    first, *folders = note.read_text().splitlines() or ["{}"]
    holder = json.loads(first)
    temporary = Path(holder.pop("temporary", root))
    if not silent and not Holder(**holder).is_dead:
        return
    for path in _unfinished(root, note.name, map(Path, folders)):
        remove(path)
    for path in temporary.glob(f"aim-exp-*-{note.name}-*"):
        remove(path)
    for token in (root / LEASES).glob(f"*/{note.name}-*"):
        free(token.parent, token.name)
    remove(note)


def _unfinished(root: Path, mark: str, folders: Iterator[Path]) -> Iterator[Path]:
    """All that bears the mark, but what goes on when it is made again."""
    yield from root.glob(f"*/.{mark}-*")
    yield from root.glob(f"{PARTIAL}/*.{mark}-*")
    yield from root.glob(f"{BEGUN}/*/.{mark}-*")
    for folder in folders:
        yield from folder.rglob(f".{mark}-*")
