"""The front of two benchmarks: members named, AIM filled, plain merges hollow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aim_exp.report.canvas import PLAIN, hollow_in_legend, legend_below, settle
from aim_exp.report.labels import place_labels
from aim_exp.report.plots import Front, Point
from aim_exp.report.style import GREY, INK, method_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

LINE, ERROR = "front", "±1 standard error"
"""Entries of the legend that name no method; they come last."""
STAIRS = {"color": INK, "linewidth": 0.8}


def draw_plane(figure: Figure, plane: Front) -> None:
    """Every model; the line is the front, and what it dominates is faded."""
    plot = figure.subplots()
    plot.set(xlabel=f"{plane.axes[0]} (%)", ylabel=f"{plane.axes[1]} (%)")
    plot.margins(0.1)
    for point in plane.members:
        _draw_dots(plot, point, INK)
        plot.plot(*_at(point), "D", color=INK, markersize=5, alpha=_strength(point), zorder=4)
    _draw_merged(plot, plane)
    plot.set(xlim=plot.get_xlim(), ylim=plot.get_ylim())  # what follows must not move them
    stairs = [_draw_front_line(plot, line) for line in plane.lines]
    if stairs:
        plot.plot([], [], **STAIRS, label=LINE)
    error = _name_typical_error(plot, plane)
    legend_below(figure, plot, last=(PLAIN, LINE, error))
    settle(figure)  # texts can be measured from here on
    place_labels(
        plot,
        [(*_at(point), point.name) for point in plane.members],
        points=[place for point in (*plane.members, *plane.merged) for place in _places(point)],
        lines=stairs,
    )


def _draw_dots(plot: Plot, point: Point, colour: str) -> None:
    for place in _places(point)[1:]:
        plot.plot(*place, ".", color=colour, alpha=0.45, markersize=3, zorder=1)


def _draw_front_line(plot: Plot, line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The staircase: what lies below and to the left of it is dominated. Returns its corners."""
    corners = [(100 * x, 100 * y) for x, y in line]
    stairs = [(plot.get_xlim()[0], corners[0][1])]
    for x, y in corners:
        stairs += [(stairs[-1][0], y), (x, y)]
    stairs.append((corners[-1][0], plot.get_ylim()[0]))
    plot.plot(*zip(*stairs, strict=True), **STAIRS, zorder=2)
    return stairs


def _draw_merged(plot: Plot, plane: Front) -> None:
    """AIM filled, plain merges hollow, and a thin line from the one through the others."""
    for path in plane.paths:
        colour, _ = method_style(path.method)
        xs, ys = zip(*[(100 * x, 100 * y) for x, y in path.places], strict=True)
        plot.plot(xs, ys, color=colour, linewidth=0.6, alpha=0.5, zorder=3)
    for point in plane.merged:
        colour, marker = method_style(point.method or "")
        _draw_dots(plot, point, colour)
        style = {"alpha": _strength(point), "zorder": 5}
        fill = "white" if point.plain else colour
        plot.plot(*_at(point), marker, color=colour, markerfacecolor=fill, **style)
    for method in dict.fromkeys(point.method or "" for point in plane.merged):
        colour, marker = method_style(method)
        plot.plot([], [], marker, color=colour, label=method)
    if any(point.plain for point in plane.merged):
        hollow_in_legend(plot)


def _name_typical_error(plot: Plot, plane: Front) -> str:
    """One for all points, in the legend only: bars on each would hide them. Returns its entry."""
    errors = [(p.x.stderr, p.y.stderr) for p in (*plane.members, *plane.merged)]
    known = [(100 * x, 100 * y) for x, y in errors if x is not None and y is not None]
    if not known:
        return ""
    wide, high = (sorted(values)[len(values) // 2] for values in zip(*known, strict=True))
    name = f"{ERROR}: x {wide:.1f}, y {high:.1f}"
    nowhere = float("nan")
    plot.errorbar(
        nowhere, nowhere, xerr=wide, yerr=high, color=GREY, linewidth=0.8, capsize=1.5, label=name
    )
    return name


def _at(point: Point) -> tuple[float, float]:
    """Where it lies, in percent."""
    return 100 * point.x.value, 100 * point.y.value


def _places(point: Point) -> list[tuple[float, float]]:
    """Where it and its draws lie, in percent."""
    return [_at(point), *((100 * x, 100 * y) for x, y in point.draws)]


def _strength(point: Point) -> float:
    return 1.0 if point.on_front else 0.35
