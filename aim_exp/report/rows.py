"""Rows, draws and groups: which runs share a row, what is averaged, what may be ranked together.

Two runs share a row exactly where all that is shown rests on the same: keys of weights and scores
(seeds apart), headline metric, reference points, specialty, members, the experts merged. Settings
only name rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from aim_exp.report.load import Job, Runs
from aim_exp.store.records import Role

AVERAGE, GAIN = "average", "hypervolume gain"
"""Quantities beside the benchmarks; no benchmark is called so."""


@dataclass(frozen=True)
class Estimate:
    """A quantity of one model, or the mean of it over `n` draws. Scores lie in [0, 1]."""

    mean: float
    deviation: float | None
    """Sample standard deviation over the outermost draws; None of one."""
    stderr: float | None
    """Standard error of one draw over its benchmark items (root mean square); None: unknown."""
    n: int
    """Draws of the outermost level."""
    values: tuple[float, ...]
    """[n], of each of these draws, what lies inside it averaged."""


@dataclass(frozen=True)
class Row:
    """What tables and figures show as one: a model, or its draws with several seeds."""

    key: str
    """Equal where all that is shown rests on the same; of the same length everywhere."""
    model: str
    """`base`, an expert's or a reference's name; of a merge, its method."""
    role: Role
    label: str
    """In a few words, unique within its group: `ties omega=0.4 density=0.2`; `base`."""
    settings: Mapping[str, str]
    """By full key those that the row depends on and that vary among all that is shown, with
    method and omega, as one would write them (`null` for none); empty but for merges."""
    method: str
    """Of a merge; else empty."""
    omega: float | None
    """1.0 for a plain merge; None where it plays no part."""
    relaxed: bool
    jobs: tuple[Job, ...]
    """That made it: the first stands for what all have in common."""
    estimates: Mapping[str, Estimate]
    """By benchmark, `AVERAGE` and, for merges, `GAIN`, where they are known."""
    on_front: bool
    """Whether no other member or merge of its group dominates it, by mean scores."""
    plain: str | None
    """Of a relaxed merge, the key of the row of the plain merge of the same; None without one."""

    @property
    def n(self) -> int:
        """Draws of the outermost level."""
        return max((each.n for each in self.estimates.values()), default=1)

    @property
    def titles(self) -> str:
        """Of its jobs, short: `0, 2`, or `0 and 11 more`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Group:
    """Rows that may be ranked together: the same population and protocol, or draws of it."""

    number: int
    """From 1."""
    shared: Mapping[str, str]
    """What tells it from the other groups (`evaluator.max_length` -> `45`); empty if alone."""
    benchmarks: tuple[str, ...]
    members: tuple[Row, ...]
    """Base and experts."""
    merges: tuple[Row, ...]
    """In the order of their runs, unscored ones (`benchmarks=none`) among them."""
    references: tuple[Row, ...]
    names: tuple[str, ...]
    """Settings, by full key, that tell its merges apart; method and omega first, always."""
    draws: Mapping[str, int]
    """The seeds that are averaged over, outermost first, with the number of their values."""
    gaps: tuple[str, ...]
    """Why other seeds are not averaged over: a sentence each."""

    @property
    def title(self) -> str:
        """`max_length=45`; empty if it is the only one."""
        raise NotImplementedError

    @property
    def rows(self) -> tuple[Row, ...]:
        """Members, merges, references."""
        return (*self.members, *self.merges, *self.references)

    @property
    def ranked(self) -> tuple[Row, ...]:
        """Scored merges, the best average first."""
        raise NotImplementedError

    @property
    def counted(self) -> str:
        """What a mean is over: `n seeds`, `n populations` (the outermost); empty without draws."""
        raise NotImplementedError

    def best(self, quantity: str) -> float | None:
        """The best mean of members and merges (references do not compete)."""
        raise NotImplementedError

    def row(self, key: str) -> Row:
        """The row of this key."""
        return next(row for row in self.rows if row.key == key)


@dataclass(frozen=True)
class Report:
    """All that is shown of some runs."""

    runs: Runs
    scores: pd.DataFrame
    """`frames.results` with its private columns (`_...`): a line per model and benchmark."""
    jobs: pd.DataFrame
    """A line per job asked for: `results.csv` with private columns."""
    groups: tuple[Group, ...]
    unscored: tuple[Job, ...]
    """Jobs that are in no group: failed, running, not run, unreadable."""
    varying: tuple[str, ...]
    """Settings by full key that vary among the rows of all groups; method and omega first."""
    benchmarks: tuple[str, ...]
    """Of all groups."""

    @property
    def merges(self) -> tuple[Row, ...]:
        """Of all groups."""
        return tuple(row for group in self.groups for row in group.merges)

    def short(self, name: str) -> str:
        """A setting's short name where it is unambiguous: `method.density` -> `density`."""
        raise NotImplementedError


def make_report(runs: Runs) -> Report:
    """Frames, rows and groups of `runs`."""
    raise NotImplementedError
