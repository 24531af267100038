"""What is chosen of the settings that were tried, never on the items that it is reported on.

The best row of a table was chosen on the items that it is reported on, so it is partly luck. By
`select`, one half of the items of each benchmark chooses, by a hash of each, and the other reports;
or all populations but the one that is reported on, for each of them in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from aim_exp.errors import AimError
from aim_exp.report.draws import LEVELS, OUTERMOST, Draw, Level, Value
from aim_exp.report.estimates import outermost_values
from aim_exp.report.grouped import grouped
from aim_exp.report.items import read_items
from aim_exp.report.kept import kept
from aim_exp.report.settings import label
from aim_exp.store.keys import content_key
from aim_exp.types import POPULATIONS, Selection

if TYPE_CHECKING:
    from aim_exp.report.rows import Group, Report, Row

VERSION = 2
"""Counts up when the split changes."""
FOLDER = "halves"
OMEGA = "omega"


@dataclass(frozen=True)
class Choice:
    """Among merges that differ in what is chosen only; averages in [0, 1]."""

    name: str
    """What was chosen from: `ties`, `slerp experts=code+math [2]`."""
    settings: tuple[str, ...]
    """By full key, those that are chosen."""
    candidates: int
    """One where there was nothing to choose, beside others."""
    available: int
    """More than `candidates` where the budget is smaller."""
    on: str
    """`half of the items`, `the other 2 populations`."""
    best_on_all: Row
    """Chosen on its own test items."""
    average_on_all: float
    chosen: tuple[Row, ...]
    """One, or one for each population."""
    average_when_chosen: float
    reported: tuple[float, ...]
    """On what had no say, of each draw of the outermost level."""

    @property
    def average_reported(self) -> float:
        return fmean(self.reported)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the draws; None of one."""
        return stdev(self.reported) if len(self.reported) > 1 else None


@dataclass(frozen=True)
class _Averages:
    """Of a model: on all items, and on either half of each benchmark's."""

    whole: float
    first: float
    second: float
    items: tuple[str, ...] = ()
    """By benchmark, equal where the items are the same."""


@dataclass(frozen=True)
class _Candidate:
    row: Row
    level: Level
    """The outermost level that it has several draws of."""
    draws: Mapping[Value, _Averages]
    """By the level's values, what lies inside them averaged."""

    @cached_property
    def average(self) -> float:
        return fmean(each.whole for each in self.draws.values())


@dataclass(frozen=True)
class _Trial:
    """What one choice rests on, and what it is reported on."""

    chosen_on: Mapping[str, float]
    """By a candidate's key."""
    reported: Mapping[str, list[float]]


@dataclass(frozen=True)
class Choices:
    """All of a report."""

    made: tuple[Choice, ...]
    lacking: tuple[str, ...]
    """What could not be chosen from, by name: not several populations, the same for all."""

    @cached_property
    def keys(self) -> frozenset[str]:
        """Of the rows that were chosen."""
        several = (choice for choice in self.made if choice.candidates > 1)
        return frozenset(row.key for choice in several for row in choice.chosen)


def choices(report: Report) -> Choices:
    """Of each set of merges whose items are at hand, where any has several; seeds averaged."""
    made: list[Choice] = []
    lacking: list[str] = []
    for group in report.groups:
        selection = _selection(group)
        sets = _sets(group, selection, report.shorts) if selection else {}
        if selection is None or all(len(rows) < 2 for rows in sets.values()):
            continue
        settings = tuple(name for name in _varied(group) if selection.chooses(name))
        for name, rows in sets.items():
            if not (available := [each for row in rows if (each := _candidate(row))]):
                continue
            candidates = _within(available, selection)
            if trials := _trials(candidates, selection):
                made.append(_choice(name, settings, candidates, len(available), trials, selection))
            else:
                lacking.append(name)
    return Choices(tuple(made), tuple(lacking))


def _selection(group: Group) -> Selection | None:
    """That of its first run; None where it says none."""
    record = group.merges[0].jobs[0].record if group.merges else None
    node: Any = (record.config if record else {}).get("select")
    try:
        selection = Selection(on=node["on"], budget=node["budget"], of=tuple(node["of"]))
        return None if selection.problems() else selection
    except (KeyError, TypeError):
        return None


def _varied(group: Group) -> list[str]:
    """Settings of several values: every label has omega, which need not vary."""
    values = {name: {row.settings.get(name) for row in group.merges} for name in group.names}
    return [name for name, several in values.items() if len(several) > 1]


def _sets(group: Group, selection: Selection, shorts: Mapping[str, str]) -> dict[str, list[Row]]:
    """By name merges that differ in what is chosen only.

    Where omega is chosen, a plain merge is a candidate wherever it is relaxed.
    """
    names = [name for name in _varied(group) if not selection.chooses(name)]
    every = {"method": "all methods"} if selection.chooses("method") else {}
    with_plain = selection.chooses(OMEGA)
    relaxed_from = {row.plain for row in group.merges} if with_plain else ()
    sets: dict[str, dict[str, Row]] = {}
    for row in group.merges:
        if row.key not in relaxed_from:
            rows = sets.setdefault(label({**row.settings, **every}, names, shorts) + group.mark, {})
            if row.plain and with_plain:
                rows.setdefault(row.plain, group.row(row.plain))
            rows[row.key] = row
    return {name: list(rows.values()) for name, rows in sets.items()}


def _within(candidates: Sequence[_Candidate], selection: Selection) -> list[_Candidate]:
    """As many as the budget has: plain merges first, then by keys, which know no score."""
    if selection.budget is None or len(candidates) <= selection.budget:
        return [*candidates]
    drawn = sorted(candidates, key=lambda each: (each.row.relaxed, each.row.key))
    return drawn[: selection.budget]


def _choice(
    name: str,
    settings: tuple[str, ...],
    candidates: Sequence[_Candidate],
    available: int,
    trials: Sequence[_Trial],
    selection: Selection,
) -> Choice:
    rows = {each.row.key: each.row for each in candidates}
    best_on_all = max(candidates, key=lambda each: each.average)
    chosen = [max(rows, key=trial.chosen_on.__getitem__) for trial in trials]
    when_chosen = [trial.chosen_on[key] for trial, key in zip(trials, chosen, strict=True)]
    reported = [trial.reported[key] for trial, key in zip(trials, chosen, strict=True)]
    on = "half of the items"
    if selection.on == POPULATIONS:
        others = "population" if len(trials) == 2 else f"{len(trials) - 1} populations"
        on = f"{on} of " * _share_items(candidates) + f"the other {others}"
    return Choice(
        name=name,
        settings=settings,
        candidates=len(candidates),
        available=available,
        on=on,
        best_on_all=best_on_all.row,
        average_on_all=best_on_all.average,
        chosen=tuple(rows[key] for key in chosen),
        average_when_chosen=fmean(when_chosen),
        reported=tuple(value for values in reported for value in values),
    )


def _trials(candidates: Sequence[_Candidate], selection: Selection) -> list[_Trial]:
    """One, or one for each population; none where they are not several, the same for all."""
    if selection.on != POPULATIONS:
        return [
            _Trial(
                {c.row.key: fmean(each.first for each in c.draws.values()) for c in candidates},
                {c.row.key: [each.second for each in c.draws.values()] for c in candidates},
            )
        ]
    values = list(candidates[0].draws)
    if len(values) < 2 or any(
        c.level != OUTERMOST or c.draws.keys() != candidates[0].draws.keys() for c in candidates
    ):
        return []
    on, reported = ("first", "second") if _share_items(candidates) else ("whole", "whole")
    return [
        _Trial(
            {
                c.row.key: fmean(getattr(c.draws[other], on) for other in values if other != own)
                for c in candidates
            },
            {c.row.key: [getattr(c.draws[own], reported)] for c in candidates},
        )
        for own in values
    ]


def _share_items(candidates: Sequence[_Candidate]) -> bool:
    """Whether two populations answered the same items of a benchmark: then halves are needed."""
    items = [digest for each in candidates[0].draws.values() for digest in {*each.items}]
    return len({*items}) < len(items)


def _candidate(row: Row) -> _Candidate | None:
    """None where nothing was scored, or the items are not there."""
    averages = {draw: _averages(draw) for draw in row.draws if draw.model.scores}
    known = {draw: each for draw, each in averages.items() if each}
    if not known or len(known) < len(averages):
        return None
    several = (level for level in LEVELS if len({draw.value(level) for draw in known}) > 1)
    level = next(several, OUTERMOST)
    values = grouped((draw.value(level), (draw, each)) for draw, each in known.items())
    return _Candidate(row, level, {value: _mean(inner) for value, inner in values.items()})


def _mean(draws: Sequence[tuple[Draw, _Averages]]) -> _Averages:
    every, first, second = (
        fmean(outermost_values([(draw, getattr(each, part)) for draw, each in draws]))
        for part in ("whole", "first", "second")
    )
    return _Averages(every, first, second, draws[0][1].items)


def _averages(draw: Draw) -> _Averages | None:
    own = [draw.sources[name] for name in draw.objectives]

    def averages() -> dict[str, Any] | None:
        try:
            items = [read_items(source) for source in own]
        except AimError:
            return None
        halves = [[each.half(parity) for each in items] for parity in (0, 1)]
        whole = [set(each.tasks) for each in items]
        if any([set(each.tasks) for each in half] != whole for half in halves):
            return None
        parts = {"whole": items, "first": halves[0], "second": halves[1]}
        means = {name: fmean(each.score for each in part) for name, part in parts.items()}
        return {**means, "items": [content_key("items", 1, each.ids) for each in items]}

    if not all(source.is_there for source in own):
        return None
    spec = [[source.evidence, source.score] for source in own]
    known = kept(draw.job.shared / FOLDER, VERSION, spec, averages)
    return _Averages(**{**known, "items": tuple(known["items"])}) if known else None
