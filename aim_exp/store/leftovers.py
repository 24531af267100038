"""What killed processes leave unfinished, removed by the next one; never a living process's.

It bears the mark of its process (`files.unfinished`), so that it is known wherever it lies; where
to look, the process's note says, which stays when it is killed, and goes last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from aim_exp.store.entries import BEGUN, LEASES, PARTIAL
from aim_exp.store.files import remove
from aim_exp.store.leases import free
from aim_exp.store.process_notes import PROCESSES, ProcessNote


def remove_leftovers(root: Path, now: float) -> None:
    """Of every process at the store `root` that is dead; `now` is the clock of notes."""
    for path in (root / PROCESSES).iterdir():
        if path.name.startswith("."):
            _remove_nobodys(path)
            continue
        with suppress(OSError, ValueError, TypeError, KeyError):
            note = ProcessNote.read(path)
            if note.is_dead(now):
                _clear(note, root)


def _clear(note: ProcessNote, root: Path) -> None:
    mark = note.path.name
    for path in _unfinished(note, root):
        remove(path)
    for path in note.temporary.glob(f"aim-exp-*-{mark}-*"):
        remove(path)
    for token in (root / LEASES).glob(f"*/{mark}-*"):
        free(token.parent, token.name)
    remove(note.path)


def _unfinished(note: ProcessNote, root: Path) -> Iterator[Path]:
    """All that bears its mark, but what goes on when it is made again."""
    mark = note.path.name
    yield from root.glob(f"*/.{mark}-*")
    yield from root.glob(f"{PARTIAL}/*.{mark}-*")
    yield from root.glob(f"{BEGUN}/*/.{mark}-*")
    for folder in note.writes:
        yield from folder.rglob(f".{mark}-*")


def _remove_nobodys(partial: Path) -> None:
    """An unfinished note, where its process has none yet: it was killed, or writes it again."""
    if not partial.with_name(partial.name[1:].partition("-")[0]).exists():
        remove(partial)
