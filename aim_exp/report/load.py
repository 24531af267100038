"""Directories to runs: every job asked for, its record where there is one, and what is odd."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aim_exp.store.records import INTERRUPTED, RunRecord

SWEEP_FILE = "sweep.json"
NOT_RUN, UNREADABLE = "not run", "unreadable"
"""Beside a record's own statuses: never begun; a record that this code cannot read."""


@dataclass(frozen=True)
class Job:
    """One run that was asked for."""

    sweep: str
    """Its sweep's folder, below the directory that all that is reported has in common; of one
    sweep, or a run by itself, `.`."""
    name: str
    """Its folder below the sweep's: `7`; of a run by itself, the folder's name."""
    title: str
    """The name, with a number for the sweep where there are several: `S2/7`."""
    folder: str
    """Below the directory that all have in common: `2026-01-02_ab12/7`."""
    directory: Path
    record: RunRecord | None
    """None where it was not begun, or cannot be read."""
    status: str
    """The record's (`running`, `completed`, `failed`), `not run` or `unreadable`."""
    overrides: tuple[str, ...] = ()
    """As given, where the sweep or the record says so."""

    @property
    def ended_early(self) -> str:
        """`failed`, `interrupted` (by Ctrl-C), `not run`, ...; empty where it completed."""
        if self.status == "completed":
            return ""
        interrupted = self.record is not None and self.record.error == INTERRUPTED
        return INTERRUPTED if interrupted else self.status

    @property
    def seconds(self) -> float | None:
        """What the whole run took."""
        timings = self.record.timings if self.record else {}
        return timings.get("total", sum(timings.values())) if timings else None


@dataclass(frozen=True)
class Runs:
    """All runs in or below some directories, in the order of their folders."""

    directory: Path
    """What they have in common."""
    jobs: tuple[Job, ...]
    problems: tuple[str, ...]
    """A line each: `5 of 6 runs read; sweep/3: result.json is not JSON`."""
    sweeps: Mapping[str, str]
    """By the numbers in titles (`S2`), the sweep's folder; empty where there is one."""


def load(*directories: Path) -> Runs:
    """Every job of `directories` and of what lies below them. No record raises anything.

    AimError, which names it, for a directory that is not there.
    """
    raise NotImplementedError
