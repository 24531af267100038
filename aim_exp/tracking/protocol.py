"""Experiment tracking: a run per job in Weights & Biases, or nowhere.

What is tracked is computed elsewhere (`aim_exp.tracking.tracked`); a tracker only logs it. It
never costs a result: whatever goes wrong in it is one line on the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from aim_exp.console import console
from aim_exp.errors import first_line
from aim_exp.store.files import RUN_KEYS, named

Value = str | float | bool | None
Row = Mapping[str, Value]
"""Of a table, by column; a column holds numbers, truth values, or texts, and None where unknown."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """A job, or a sweep's report, as a tracker knows it from the start."""

    id: str
    """Stable for a directory, so that a job that is run again continues its run."""
    name: str
    """For people: `ties omega=0.4`."""
    directory: Path
    """Its own; everything that is tracked locally goes there."""
    config: Mapping[str, Any]
    """Settings in plain containers, those that dashboards group and plot by at the top."""
    kind: Literal["merge", "report"] = "merge"
    group: str | None = None
    """The sweep's name."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class SavedModel:
    """A merged model on disk, in the Hugging Face layout."""

    folder: Path
    recipe: Mapping[str, Any]
    """How to make it again, in plain containers."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out, ready to be logged; names say what belongs together: `score/math`."""

    succeeded: bool = True
    metrics: Mapping[str, float | bool] = field(default_factory=dict)
    """What runs are compared by."""
    details: Mapping[str, Value] = field(default_factory=dict)
    """Other single values: standard errors, seconds, the error of a failed job."""
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Rows of the same columns."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """PNG files."""
    pages: Mapping[str, Path] = field(default_factory=dict)
    """HTML files that need no other."""
    model: SavedModel | None = None


class Tracker(Protocol):
    """Follows one run at a time, from `start` to `finish`. What it raises costs a line."""

    def problems(self) -> list[str]:
        """What is wrong with its settings, each `key=value: why; fix`."""
        ...

    def prepare(self) -> None:
        """A run is about to be built: import what is imported faster before torch is."""
        ...

    def start(self, run: RunInfo) -> None:
        """A run begins; one with the `id` of an earlier run continues it."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """It is over, well or not. Called also where `start` failed."""
        ...


def prepare(tracker: Tracker | None) -> None:
    """`tracker.prepare`; an error in it is told by `start`."""
    if tracker:
        with suppress(Exception):
            tracker.prepare()


def start(tracker: Tracker, run: RunInfo) -> None:
    """`tracker.start`; an error in it is told, not raised."""
    with _warning_on_error("not tracked", run.directory):
        tracker.start(run)


def finish(tracker: Tracker, outcome: Outcome, directory: Path) -> None:
    """`tracker.finish` of the run in `directory`; an error in it is told, not raised."""
    with _warning_on_error("tracked incompletely", directory):
        tracker.finish(outcome)


@contextmanager
def _warning_on_error(consequence: str, directory: Path) -> Iterator[None]:
    try:
        with named("the tracker's files", directory, RUN_KEYS):
            yield
    except Exception as error:
        say(f"tracker: {consequence} ({first_line(error)})")


def say(line: str) -> None:
    """Print a tracker's line, never wrapped by us."""
    console.print(line, style="yellow", markup=False, soft_wrap=True)
