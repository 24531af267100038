"""No tracking."""

from __future__ import annotations

from dataclasses import dataclass

from aim_exp.tracking.protocol import Outcome, RunInfo


@dataclass(frozen=True)
class NullTracker:
    """Tracks nothing, and is false: what others are given need not be worked out."""

    def __bool__(self) -> bool:
        return False

    def problems(self) -> list[str]:
        """None."""
        return []

    def prepare(self) -> None:
        """Do nothing."""

    def start(self, run: RunInfo) -> None:
        """Do nothing."""

    def finish(self, outcome: Outcome) -> None:
        """Do nothing."""
