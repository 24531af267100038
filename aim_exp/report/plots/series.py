"""Merges along any setting that was swept: where they stand, what is joined, how it looks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise

from aim_exp.report.plots.style import Look, Name, looks
from aim_exp.report.rows import AVERAGE, Group, Report, Row

OMEGA, METHOD = "omega", "method"
NULL = "null"
"""Of a plain merge, on the axis of omega: it stands at 1, which gives the same model."""
DECADES = 20
"""An axis whose greatest value is this many times its least is logarithmic."""
TICKS = 7
"""Values that are all written; of more, round numbers."""
CLOSE = 0.07
"""Of an axis: places as near as this have no room for two texts."""
SHIFT, SPREAD = 0.06, 0.6
"""Between neighbouring series, and at most over all; of the least step along the axis."""


@dataclass(frozen=True)
class Axis:
    """A setting's values, at places that a linear axis shows; drawers know no other."""

    key: str
    title: str
    places: Mapping[str, float]
    """By value, as text: the number, its logarithm, or its position among words."""
    ticks: Mapping[float, str]
    """By place, the text."""
    limits: tuple[float, float]
    step: float
    """The least between two places."""
    null: float
    """Where plain merges stand, on the axis of omega."""

    @property
    def is_line(self) -> bool:
        """Whether there is anything to join."""
        return len(self.places) > 1


@dataclass(frozen=True)
class Series:
    """Merges that differ in the axis alone (and seeds), in its order; `level` is theirs."""

    group: Group
    names: Name
    """The method, and what else varies."""
    rows: tuple[Row, ...]
    places: tuple[float, ...]
    """Of each, moved a little, or points of several series would hide one another."""
    level: Row | None
    """What has no place on the axis: the plain merge, or one relaxed without this setting."""
    level_place: float | None
    """Of a plain merge on the axis of omega; else it is a line alone."""
    look: Look

    @property
    def name(self) -> str:
        return " ".join(self.names).strip()

    @property
    def path(self) -> tuple[Row, ...]:
        """From the plain merge to the strongest relaxation."""
        return (*filter(None, [self.level]), *reversed(self.rows))


@dataclass(frozen=True)
class Sweep:
    """All merges against one setting."""

    axis: Axis
    series: tuple[Series, ...]

    @property
    def is_worth_drawing(self) -> bool:
        """Whether anything has two places."""
        return any(len(each.rows) + (each.level is not None) > 1 for each in self.series)


def swept_keys(report: Report) -> list[str]:
    """Settings with two values or more among scored merges; omega first."""
    values = {
        key: {row.settings.get(key) for row in filter(is_scored, report.merges)}
        for key in report.varying
    }
    keys = [key for key, of in values.items() if len(of - {None}) > 1]
    return sorted(keys, key=lambda key: (key != OMEGA, key == METHOD))


def sweep(report: Report, key: str = OMEGA) -> Sweep:
    """All scored merges of `report` against the setting `key` (in full)."""
    one_omega = len({row.settings.get(OMEGA) for row in filter(is_scored, report.merges)}) < 2
    hidden = {key, OMEGA} if one_omega else {key}
    groups = {group.number: group for group in report.groups}
    scored = [(group, row) for group in report.groups for row in filter(is_scored, group.merges)]
    members: dict[tuple[int, Name], list[Row]] = {}
    for group, row in scored:
        if _has_place(row, key):
            names = ("" if key == METHOD else row.method, setting_words(report, group, row, hidden))
            members.setdefault((group.number, names), []).append(row)
    levels = {each: _plain(groups[each[0]], rows, key) for each, rows in members.items()}
    taken = {row.key for rows in (*members.values(), levels.values()) for row in rows if row}
    for group, row in scored:
        if row.key not in taken:
            identity = group.number, (row.method, setting_words(report, group, row, hidden))
            members.setdefault(identity, [])
            levels.setdefault(identity, row)
    with_null = key == OMEGA and any(row and not row.relaxed for row in levels.values())
    axis = _axis(report, key, chain(*members.values()), with_null=with_null)
    styles = looks(names for _, names in members)
    numbers = [number for number, _ in members]
    series = []
    for place, ((number, names), rows) in enumerate(members.items()):
        first, count = numbers.index(number), numbers.count(number)
        shift = min(SHIFT, SPREAD / count) * axis.step * (place - first - (count - 1) / 2)
        rows.sort(key=lambda row: axis.places[row.settings[key]])
        level = levels[number, names]
        is_null = key == OMEGA and level is not None and not level.relaxed
        series.append(
            Series(
                group=groups[number],
                names=names,
                rows=tuple(rows),
                places=tuple(axis.places[row.settings[key]] + shift for row in rows),
                level=level,
                level_place=axis.null + shift if is_null else None,
                look=styles[names],
            )
        )
    return Sweep(axis, tuple(series))


def is_scored(row: Row) -> bool:
    """Whether it has any score."""
    return AVERAGE in row.estimates


def _has_place(row: Row, key: str) -> bool:
    return key in row.settings and (key != OMEGA or row.relaxed)


def setting_words(report: Report, group: Group, row: Row, hidden: Collection[str]) -> str:
    """What names a row in its group beside its method and the settings in `hidden`."""
    names = [name for name in group.names if name in row.settings and name not in hidden]
    shown = [name for name in names if name != METHOD]
    return " ".join(f"{report.short(name)}={row.settings[name]}" for name in shown)


def _plain(group: Group, rows: list[Row], key: str) -> Row | None:
    """The plain merge of all of `rows`, unless it has a place of its own."""
    keys = {row.plain for row in rows if row.plain}
    if len(keys) != 1:
        return None
    (wanted,) = keys
    plain = next((row for row in group.merges if row.key == wanted), None)
    return plain if plain and is_scored(plain) and not _has_place(plain, key) else None


def _axis(report: Report, key: str, rows: Iterable[Row], *, with_null: bool) -> Axis:
    texts = list(dict.fromkeys(row.settings[key] for row in rows))
    numbers = {text: number for text in texts if (number := as_number(text)) is not None}
    title = report.short(key)
    if len(numbers) < max(2, len(texts)):  # words, or a single value: at even steps
        order = sorted(texts, key=lambda text: (text not in numbers, numbers.get(text, 0.0)))
        names = [*order, *[NULL] * with_null]
        places = {text: float(place) for place, text in enumerate(order)}
        ticks = {float(place): name for place, name in enumerate(names)}
        return Axis(key, title, places, ticks, (-0.5, len(names) - 0.5), 1.0, float(len(order)))
    low, high = min(numbers.values()), max(numbers.values())
    logarithmic = key != OMEGA and low > 0 and high / low >= DECADES
    places = {text: math.log10(n) if logarithmic else n for text, n in numbers.items()}
    every = sorted({*places.values(), *[1.0] * with_null})
    step = min(after - before for before, after in pairwise(every))
    if key == OMEGA:
        ticks = {n / 5: f"{n / 5:g}" for n in range(5)} | {1.0: NULL if with_null else "1"}
        every = [0.0, *every, 1.0]
    else:
        ticks = _ticks(places, logarithmic=logarithmic)
    room = max(0.03 * (every[-1] - every[0]), step * SPREAD / 2)
    return Axis(key, title, places, ticks, (every[0] - room, every[-1] + room), step, 1.0)


def _ticks(places: Mapping[str, float], *, logarithmic: bool) -> dict[float, str]:
    order = sorted(places.items(), key=lambda pair: pair[1])
    low, high = order[0][1], order[-1][1]
    apart = min(after[1] - before[1] for before, after in pairwise(order))
    if len(order) <= TICKS and apart > CLOSE * (high - low):
        return {place: text for text, place in order}
    if logarithmic:
        exponents = range(math.floor(low), math.ceil(high) + 1)
        factors = (1,) if high - low > 3 else (1, 2, 5)
        ticks = {math.log10(f) + e: f"{f * 10.0**e:g}" for e in exponents for f in factors}
        return {place: text for place, text in ticks.items() if low <= place <= high}
    from matplotlib.ticker import MaxNLocator

    return {float(x): f"{x:g}" for x in MaxNLocator(6).tick_values(low, high) if low <= x <= high}


def as_number(text: str) -> float | None:
    """The number that it is, if it is a finite one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
