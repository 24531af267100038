"""What is chosen of the settings that were tried, never on the items that it is reported on.

The best row of a table was chosen on the items that it is reported on, so it is partly luck. By
`select`, one half of the items of each benchmark chooses, by a hash of each, and the other reports;
or all populations but the one that is reported on, for each of them in turn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from aim_exp.errors import AimError
from aim_exp.report.draws import LEVELS, OUTERMOST, Draw, Level, Value
from aim_exp.report.estimates import outermost_values
from aim_exp.report.files import kept
from aim_exp.report.grouped import grouped
from aim_exp.report.items import read_items
from aim_exp.report.settings import label
from aim_exp.store.stage_spec import content_key
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


Averages = Mapping[str, float]
"""Of a model: on all items (`whole`), and on either half of each benchmark's."""


@dataclass(frozen=True)
class _Candidate:
    row: Row
    level: Level
    """The outermost level that it has several draws of."""
    draws: Mapping[Value, Averages]
    """By the level's values, what lies inside them averaged."""
    items: tuple[str, ...]
    """Of its draws' benchmarks, equal where the items are the same."""

    def values(self, part: str, of: Collection[Value] | None = None) -> list[float]:
        """Averages on a part of the items, of these draws or of all."""
        return [each[part] for value, each in self.draws.items() if of is None or value in of]


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
            if selection.on != POPULATIONS or _have_populations(candidates):
                made.append(_choice(name, settings, candidates, len(available), selection))
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
    in_order = sorted(candidates, key=lambda each: (each.row.relaxed, each.row.key))
    return in_order[: selection.budget]


def _have_populations(candidates: Sequence[_Candidate]) -> bool:
    """Several, and the same for all."""
    values = candidates[0].draws.keys()
    return len(values) > 1 and all(
        each.level == OUTERMOST and each.draws.keys() == values for each in candidates
    )


def _choice(
    name: str,
    settings: tuple[str, ...],
    candidates: Sequence[_Candidate],
    available: int,
    selection: Selection,
) -> Choice:
    own = candidates[0]
    trials: list[tuple[Collection[Value] | None, Collection[Value] | None]] = [(None, None)]
    halves, on = True, "half of the items"
    if selection.on == POPULATIONS:
        trials = [(own.draws.keys() - {value}, {value}) for value in own.draws]
        halves = len({*own.items}) < len(own.items)  # two of them answered the same ones
        others = "population" if len(trials) == 2 else f"{len(trials) - 1} populations"
        on = f"{on} of " * halves + f"the other {others}"
    first, second = ("first", "second") if halves else ("whole", "whole")
    chosen, when_chosen, reported = [], [], []
    for chosen_on, reported_on in trials:
        averages = [fmean(each.values(first, chosen_on)) for each in candidates]
        when_chosen.append(max(averages))
        best = candidates[averages.index(when_chosen[-1])]
        chosen.append(best.row)
        reported += best.values(second, reported_on)
    on_all = [fmean(each.values("whole")) for each in candidates]
    return Choice(
        name=name,
        settings=settings,
        candidates=len(candidates),
        available=available,
        on=on,
        best_on_all=candidates[on_all.index(max(on_all))].row,
        average_on_all=max(on_all),
        chosen=tuple(chosen),
        average_when_chosen=fmean(when_chosen),
        reported=tuple(reported),
    )


def _candidate(row: Row) -> _Candidate | None:
    """None where nothing was scored, or the items are not there."""
    averages = {draw: _averages(draw) for draw in row.draws if draw.model.scores}
    known = [(draw, each) for draw, each in averages.items() if each]
    if not known or len(known) < len(averages):
        return None
    several = (level for level in LEVELS if len({draw.value(level) for draw in averages}) > 1)
    level = next(several, OUTERMOST)
    values = grouped((draw.value(level), (draw, each)) for draw, each in known)

    def mean(inner: Sequence[tuple[Draw, Mapping[str, Any]]]) -> Averages:
        parts = ("whole", "first", "second")
        return {part: fmean(outermost_values([(d, each[part]) for d, each in inner]))
                for part in parts}  # fmt: skip

    items = (digest for inner in values.values() for digest in {*inner[0][1]["items"]})
    return _Candidate(row, level, {value: mean(of) for value, of in values.items()}, tuple(items))


def _averages(draw: Draw) -> Mapping[str, Any] | None:
    """Of all items and either half, and by benchmark what is equal where the `items` are."""
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
    return kept(draw.job.shared / FOLDER, VERSION, spec, averages)
