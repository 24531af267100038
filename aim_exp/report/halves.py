"""Omega and lambda chosen on one half of the items and reported on the other.

The best row of a table was chosen on the items that it is reported on, so it is partly luck.
Here one half of the items of each benchmark chooses, by a hash of each, and the other reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from aim_exp.errors import AimError
from aim_exp.report.draws import Draw
from aim_exp.report.estimates import outermost_values
from aim_exp.report.items import read_items
from aim_exp.report.kept import kept
from aim_exp.report.rows import Group, Report, Row

CHOSEN = ("omega", "method.scale")
"""The settings that are tuned: what else differs makes another set of candidates."""
VERSION = 1
"""Counts up when the split changes."""
FOLDER = "halves"


@dataclass(frozen=True)
class Choice:
    """Among `candidates` merges that differ in omega and lambda only; averages in [0, 1]."""

    name: str
    """What was chosen from: `ties`, `ties [2]`."""
    best_on_all: str
    """The best on all items, chosen on its own test items: its label."""
    average_on_all: float
    chosen: str
    """The best on the first half: its label."""
    average_when_chosen: float
    average_reported: float
    """Of `chosen`, on the second half, which had no say."""
    candidates: int


def choices(report: Report) -> list[Choice]:
    """A choice for each set of several candidates whose items are at hand; seeds averaged."""
    return [
        choice
        for group in report.groups
        for rows in _candidates(group)
        if (choice := _choice(rows, group.mark))
    ]


def _candidates(group: Group) -> list[list[Row]]:
    """Merges that differ in what is chosen only; a plain merge is one wherever it is relaxed."""
    names = [name for name in group.names if name not in CHOSEN]
    sets: dict[tuple[object, ...], dict[str, Row]] = {}
    relaxed_from = {row.plain for row in group.merges}
    for row in group.merges:
        if row.relaxed or row.key not in relaxed_from:
            rows = sets.setdefault(tuple(row.settings.get(name) for name in names), {})
            if row.plain:
                rows.setdefault(row.plain, group.row(row.plain))
            rows[row.key] = row
    return [list(rows.values()) for rows in sets.values()]


def _choice(rows: Sequence[Row], mark: str) -> Choice | None:
    halves = {row.label: values for row in rows if (values := _halves(row))}
    if len(halves) < 2:
        return None
    best_on_all = max(halves, key=lambda label: halves[label][0])
    chosen = max(halves, key=lambda label: halves[label][1])
    return Choice(
        name=f"{rows[0].method}{mark}",
        best_on_all=best_on_all,
        average_on_all=halves[best_on_all][0],
        chosen=chosen,
        average_when_chosen=halves[chosen][1],
        average_reported=halves[chosen][2],
        candidates=len(halves),
    )


def _halves(row: Row) -> tuple[float, float, float] | None:
    """The average on all items, on the first half, on the second; None where they are not there."""
    values = {draw: _of_draw(draw) for draw in row.draws if draw.model.scores}
    known = {draw: averages for draw, averages in values.items() if averages}
    if not known or len(known) < len(values):
        return None
    every, first, second = (
        fmean(outermost_values([(draw, averages[part]) for draw, averages in known.items()]))
        for part in range(3)
    )
    return every, first, second


def _of_draw(draw: Draw) -> list[float] | None:
    own = [draw.sources[name] for name in draw.objectives]

    def averages() -> list[float] | None:
        try:
            items = [read_items(source) for source in own]
        except AimError:
            return None
        halves = [[each.half(parity) for each in items] for parity in (0, 1)]
        whole = [set(each.tasks) for each in items]
        if any([set(each.tasks) for each in half] != whole for half in halves):
            return None
        return [fmean(each.score for each in part) for part in (items, *halves)]

    if not all(source.is_there for source in own):
        return None
    spec = [[source.evidence, source.score] for source in own]
    return kept(draw.job.shared / FOLDER, VERSION, spec, averages)
