"""The front of two benchmarks: members named, AIM filled, plain merges hollow.

Models of several studies do not compete: each has a panel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aim_exp.report.figures.canvas import (
    DRAWS,
    ERROR,
    PANELS,
    PLAIN,
    hollow_in_legend,
    legend_below,
    panels,
    settle,
)
from aim_exp.report.figures.labels import place_labels
from aim_exp.report.figures.style import INK, method_style
from aim_exp.report.plots import Front, Plane, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

LINE = "front"
"""In the legend."""
STAIRS = {"color": INK, "linewidth": 0.8}


def draw_planes(figure: Figure, front: Front) -> None:
    """Every model of each study (of the first few); the line is the front, what lies below faded.

    The typical error stands above each panel: bars on every point would hide them.
    """
    planes = front.planes[:PANELS]
    plots = panels(figure, [_title(plane) for plane in planes])
    for plot, plane in zip(plots, planes, strict=True):
        plot.set(xlabel=f"{front.axes[0]} (%)", ylabel=f"{front.axes[1]} (%)")
        plot.margins(0.1)
        _draw_members(plot, plane)
        _draw_merged(plot, plane)
    plots[0].set(xlim=plots[0].get_xlim(), ylim=plots[0].get_ylim())  # what follows must not move
    stairs = [_draw_front_line(plot, plane) for plot, plane in zip(plots, planes, strict=True)]
    drawn = any(point.draws for plane in planes for point in plane.points)
    legend_below(figure, last=(PLAIN, LINE), title=DRAWS if drawn else "")
    settle(figure)  # texts can be measured from here on
    for plot, plane, line in zip(plots, planes, stairs, strict=True):
        place_labels(
            plot,
            [(*_at(point), point.name) for point in plane.members],
            points=[place for point in plane.points for place in _places(point)],
            lines=[line],
        )


def _title(plane: Plane) -> str:
    error = plane.typical_error
    known = f"{ERROR}: x {100 * error[0]:.1f}, y {100 * error[1]:.1f}" if error else ""
    return "\n".join(filter(None, [plane.title, known]))


def _draw_members(plot: Plot, plane: Plane) -> None:
    for point in plane.members:
        _draw_dots(plot, point, INK)
        plot.plot(*_at(point), "D", color=INK, markersize=5, alpha=_strength(point), zorder=4)


def _draw_dots(plot: Plot, point: Point, colour: str) -> None:
    for place in _places(point)[1:]:
        plot.plot(*place, ".", color=colour, alpha=0.45, markersize=3, zorder=1)


def _draw_front_line(plot: Plot, plane: Plane) -> list[tuple[float, float]]:
    """The staircase: what lies below and to the left of it is dominated. Returns its corners."""
    corners = [(100 * x, 100 * y) for x, y in plane.line]
    stairs = [(plot.get_xlim()[0], corners[0][1])]
    for x, y in corners:
        stairs += [(stairs[-1][0], y), (x, y)]
    stairs.append((corners[-1][0], plot.get_ylim()[0]))
    plot.plot(*zip(*stairs, strict=True), **STAIRS, zorder=2, label=LINE)
    return stairs


def _draw_merged(plot: Plot, plane: Plane) -> None:
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


def _at(point: Point) -> tuple[float, float]:
    """Where it lies, in percent."""
    return 100 * point.x.value, 100 * point.y.value


def _places(point: Point) -> list[tuple[float, float]]:
    """Where it and its draws lie, in percent."""
    return [_at(point), *((100 * x, 100 * y) for x, y in point.draws)]


def _strength(point: Point) -> float:
    return 1.0 if point.on_front else 0.35
