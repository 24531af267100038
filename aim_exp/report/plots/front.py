"""The front of two benchmarks: members named, relaxed merges filled, plain merges hollow.

Models of several groups do not compete: each group has a panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from aim_exp.errors import AimError
from aim_exp.pareto import non_dominated
from aim_exp.report.grouped import grouped
from aim_exp.report.plots.canvas import (
    DRAWS,
    PANELS,
    PLAIN,
    draw_draws,
    hollow_in_legend,
    legend_below,
    name_looks,
    panels,
    settle,
)
from aim_exp.report.plots.labels import place_labels
from aim_exp.report.plots.series import Series
from aim_exp.report.plots.style import HOLLOW, INK, MEMBER
from aim_exp.report.rows import Group, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

Pair = tuple[str, str]
Place = tuple[float, float]
LINE, REFERENCE = "front", "reference"
"""In the legend."""
FADED = 0.35
"""Opacity of what is dominated."""


@dataclass(frozen=True)
class Plane:
    """The models of a group that are scored on both benchmarks."""

    group: Group
    axes: Pair
    members: tuple[Row, ...]
    references: tuple[Row, ...]
    """Named as members are; they do not compete."""
    series: tuple[Series, ...]
    front: tuple[Row, ...]
    """Members and merges that no other dominates, from left to right."""

    def place(self, row: Row) -> Place:
        """In percent."""
        x, y = (100 * row.estimates[axis].mean for axis in self.axes)
        return x, y

    def draws(self, row: Row) -> list[Place]:
        """Of each of several seeds, in percent."""
        xs, ys = (row.estimates[axis].values for axis in self.axes)
        return [(100 * x, 100 * y) for x, y in zip(xs, ys, strict=True)] if len(xs) > 1 else []

    def shown(self, rows: Sequence[Row]) -> list[Row]:
        """Those that are scored on both."""
        return [row for row in rows if set(self.axes) <= row.estimates.keys()]

    @cached_property
    def best(self) -> frozenset[str]:
        """Keys of the front."""
        return frozenset(row.key for row in self.front)

    @property
    def stairs(self) -> list[Place]:
        """The corners of the front's line, without its ends."""
        corners: list[Place] = []
        for x, y in map(self.place, self.front):
            corners += [(corners[-1][0], y), (x, y)] if corners else [(x, y)]
        return corners

    @property
    def title(self) -> str:
        """The group's, and the median of what follows ±, in points, where that is known."""
        rows = [*self.members, *(row for each in self.series for row in self.shown(each.path))]
        margins = ((self.group.margin(row.estimates[a]) for row in rows) for a in self.axes)
        known = [[100 * each for each in column if each is not None] for column in margins]
        margin = ""
        if all(known):
            x, y = map(median, known)
            margin = f"±1 {self.group.margin_words}: x {x:.1f}, y {y:.1f}"
        return "\n".join(filter(None, [self.group.title, margin]))


def front(report: Report, series: Sequence[Series], axes: Pair | None = None) -> tuple[Plane, ...]:
    """A plane for each group that has a model scored on both; empty where nothing is.

    `series` are all merges against omega. The default axes are the two with the sharpest conflict.
    AimError if one is no benchmark here.
    """
    unknown = [axis for axis in axes or () if axis not in report.benchmarks]
    if unknown:
        known = ", ".join(report.benchmarks) or "none"
        raise AimError(f"--axes {unknown[0]}: no such benchmark here; there are: {known}")
    axes = axes or sharpest_conflict(report)
    if axes is None:
        return ()
    planes = (
        _plane(group, axes, [each for each in series if each.group is group])
        for group in report.groups
    )
    return tuple(plane for plane in planes if plane.front)


def _plane(group: Group, axes: Pair, series: Sequence[Series]) -> Plane:
    members, merges, references = (
        [row for row in rows if set(axes) <= row.estimates.keys()]
        for rows in (group.members, group.merges, group.references)
    )
    means = {row.key: tuple(row.estimates[axis].mean for axis in axes)
             for row in (*members, *merges)}  # fmt: skip
    on_front = non_dominated(list(means.values())) if means else ()
    best = {place for place, on in zip(means.values(), on_front, strict=True) if on}
    front = [row for row in (*members, *merges) if means[row.key] in best]
    front.sort(key=lambda row: means[row.key])
    return Plane(group, axes, tuple(members), tuple(references), tuple(series), tuple(front))


def sharpest_conflict(report: Report) -> Pair | None:
    """The two benchmarks whose scores have the most negative covariance over the models.

    Over base and experts; over the merges too where there are few of those. Covariance, not
    correlation: a conflict of a few items should not win.
    """
    rows = [row for group in report.groups for row in group.members if row.estimates]
    if len(rows) < 3:
        rows += [row for row in report.merges if row.estimates]
    common = [name for name in report.benchmarks if all(name in row.estimates for row in rows)]
    if not rows or len(common) < 2:
        return None
    scores = np.array([[row.estimates[name].mean for name in common] for row in rows])
    centred = scores - scores.mean(axis=0)
    covariance = centred.T @ centred
    first, second = min(combinations(range(len(common)), 2), key=lambda pair: covariance[pair])
    return common[first], common[second]


def draw_planes(figure: Figure, planes: Sequence[Plane]) -> None:
    """The line is the front, what lies below it faded.

    The typical margin stands above each panel: bars on every point would hide them.
    """
    planes = planes[:PANELS]
    plots = panels(figure, [plane.title for plane in planes])
    for plot, plane in zip(plots, planes, strict=True):
        plot.set(xlabel=f"{plane.axes[0]} (%)", ylabel=f"{plane.axes[1]} (%)")
        plot.margins(0.1)
        _draw_members(plot, plane)
        _draw_merges(plot, plane)
    plots[0].set(xlim=plots[0].get_xlim(), ylim=plots[0].get_ylim())  # what follows must not move
    lines = [_draw_line(plot, plane) for plot, plane in zip(plots, planes, strict=True)]
    series = [each for plane in planes for each in plane.series]
    name_looks(plots[0], {each.names: each.look for each in series}, joined=False)
    if any(not row.relaxed for each in series for row in each.path):
        hollow_in_legend(plots[0])
    if any(plane.references for plane in planes):
        plots[0].plot([], [], MEMBER, color=INK, markerfacecolor="white", label=REFERENCE)
    dots = any(plane.draws(row) for plane in planes for row in _rows(plane))
    legend_below(figure, last=(PLAIN, REFERENCE, LINE), title=DRAWS if dots else "")
    settle(figure)  # texts can be measured from here on
    for plot, plane, line in zip(plots, planes, lines, strict=True):
        named = (*plane.members, *plane.references)
        place_labels(
            plot,
            [(*plane.place(row), row.model) for row in named],
            points=[plane.place(row) for row in _rows(plane)],
            lines=[line],
        )


def _rows(plane: Plane) -> list[Row]:
    merges = [row for each in plane.series for row in plane.shown(each.path)]
    return [*plane.members, *plane.references, *merges]


def _draw_members(plot: Plot, plane: Plane) -> None:
    style = {"color": INK, "markersize": 5, "zorder": 4}
    for row in plane.members:
        draw_draws(plot, plane.draws(row), INK)
        plot.plot(*plane.place(row), MEMBER, alpha=_strength(plane, row), **style)
    for row in plane.references:
        plot.plot(*plane.place(row), MEMBER, markerfacecolor="white", **style)


def _draw_line(plot: Plot, plane: Plane) -> list[Place]:
    """The staircase: what lies below and to the left of it is dominated. Returns its corners."""
    stairs = plane.stairs
    stairs = [(plot.get_xlim()[0], stairs[0][1]), *stairs, (stairs[-1][0], plot.get_ylim()[0])]
    plot.plot(*zip(*stairs, strict=True), color=INK, linewidth=0.8, zorder=2, label=LINE)
    return stairs


def _draw_merges(plot: Plot, plane: Plane) -> None:
    """Relaxed ones filled, plain ones hollow, and a thin line from the one through the others."""
    seen: set[str] = set()
    for each in plane.series:
        rows = plane.shown(each.path)
        xs, ys = zip(*map(plane.place, rows), strict=True) if rows else ((), ())
        plot.plot(xs, ys, color=each.look.colour, linewidth=0.6, alpha=0.5, zorder=3)
        new = [row for row in rows if row.key not in seen]
        seen.update(row.key for row in new)  # several series may begin with one plain merge
        alike = grouped(((row.relaxed, _strength(plane, row)), row) for row in new)
        for (relaxed, strength), members in alike.items():
            style = each.look.point | ({} if relaxed else HOLLOW)
            xs, ys = zip(*map(plane.place, members), strict=True)
            plot.plot(xs, ys, linestyle="", **style, alpha=strength, zorder=5)
            for row in members:
                draw_draws(plot, plane.draws(row), each.look.colour)


def _strength(plane: Plane, row: Row) -> float:
    return 1.0 if row.key in plane.best else FADED
