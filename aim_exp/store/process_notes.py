"""The note of a process in `ROOT/processes`: who it is, where it writes, what it uses.

A process counts as dead where its number says so, on its own machine; elsewhere after a day without
a sign of life.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from aim_exp.store.leases import Holder

PROCESSES = "processes"
WRITES, USES = "writes ", "uses "
"""What the lines of a note begin with, behind the first, which says who it is."""
SILENCE = 86400.0
"""Seconds without a sign of life after which a process of another machine counts as dead."""


@dataclass(frozen=True)
class ProcessNote:
    """What it says."""

    path: Path
    """Its name is the process's mark (`files.mark`)."""
    holder: Holder
    temporary: Path
    """Where it makes folders that are of no use to another process."""
    writes: tuple[Path, ...]
    """Folders."""
    uses: tuple[str, ...]
    """Names of entries."""

    @staticmethod
    def read(path: Path) -> ProcessNote:
        """OSError, ValueError, TypeError or KeyError where it goes just now, or is no note."""
        first, *lines = path.read_text().splitlines() or ["{}"]
        holder = json.loads(first)
        temporary = Path(holder.pop("temporary"))
        writes, uses = (
            tuple(line.removeprefix(begin) for line in lines if line.startswith(begin))
            for begin in (WRITES, USES)
        )
        return ProcessNote(path, Holder(**holder), temporary, tuple(map(Path, writes)), uses)

    def is_dead(self, now: float) -> bool:
        """By its number on this machine, elsewhere by its silence; `now` is the clock of notes."""
        return self.holder.is_dead or now - self.path.stat().st_mtime > SILENCE
