"""The figures, drawn with matplotlib as PNG and PDF: one column of a paper wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aim_exp.report.canvas import legend_below, save, settle
from aim_exp.report.labels import emptiest_corner, place_labels
from aim_exp.report.plots import Axes, Front, Point, Series, front, series
from aim_exp.report.relaxation import profiles, saliency_spread
from aim_exp.report.relaxation_figures import draw_kept, draw_saliency
from aim_exp.report.repeats import AVERAGE, GAIN, Repeats, Spread
from aim_exp.report.results import Results
from aim_exp.report.style import INK, LINE_STYLES, method_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

FOLDER = "figures"
FRONT = "pareto_front"
CAPTIONS = {
    FRONT: "Two benchmarks in conflict. The line is the front; what it dominates is faded. "
    "Thin lines lead from a plain merge (hollow) through its runs with AIM (filled), from "
    "weak to strong relaxation.",
    "omega_average": "Average score against omega. Dashed: the plain merge (omega null, which "
    "omega 1 equals). Bars: one standard error over the benchmark items; faint dots: one seed "
    "each, around their mean.",
    "omega_gain": "Hypervolume gain over base and the merged experts against omega, drawn like the "
    "average. Bars: one standard error, by a parametric bootstrap of all scores.",
    "saliency": "The saliency s of base's input channels, by what reads them. Above: channels in "
    "falling order, mean over layers. Below: the mean over channels, by layer. AIM keeps r = 1 - "
    "(1 - omega) s / max s of a channel's delta.",
    "delta_kept": "How much of the merge's difference to base AIM kept (norm after over before), "
    "by kind of module. Grey: the mean of r, what would be kept of a difference that lies on all "
    "channels alike.",
}
"""By file name, what the report says below a figure."""
Painter = Callable[["Figure"], None]
PLAIN, LINE, ERROR = NO_METHODS = ("plain merge", "front", "±1 standard error (median)")
"""Entries of the legends that name no method; they come last."""
UNITS = {AVERAGE: ("average score (%)", 100.0), GAIN: ("hypervolume gain", 1.0)}
"""An axis's text, and the factor of what it shows."""
SHIFT = 0.008
"""Between neighbouring curves, in omega, and at most `SPREAD` over all."""
SPREAD = 0.04


def draw(results: Results, directory: Path, axes: Axes | None = None) -> list[Path]:
    """Draw what there is to draw into `directory/figures`; returns the PNG files."""
    painters = {**_front(results, axes), **_omega(results), **_relaxation(results)}
    return [save(name, paint, directory / FOLDER) for name, paint in painters.items()]


def draw_front(results: Results, directory: Path, *, vector: bool = True) -> Path | None:
    """Draw only the front; None if nothing was scored on two benchmarks."""
    painters = _front(results, None)
    if not painters:
        return None
    return save(FRONT, painters[FRONT], directory / FOLDER, vector=vector)


def _front(results: Results, axes: Axes | None) -> dict[str, Painter]:
    plane = front(results, axes)
    return {} if plane is None else {FRONT: lambda figure: _draw_front(figure, plane)}


def _omega(results: Results) -> dict[str, Painter]:
    drawn = series(results)
    if all(len(each.runs) + (each.null is not None) < 2 for each in drawn):
        return {}
    painters: dict[str, Painter] = {
        "omega_average": lambda figure: _draw_series(figure, drawn, AVERAGE)
    }
    if any(run.spread(GAIN) for each in drawn for run in each.runs):
        painters["omega_gain"] = lambda figure: _draw_series(figure, drawn, GAIN)
    return painters


def _relaxation(results: Results) -> dict[str, Painter]:
    painters: dict[str, Painter] = {}
    spread, kept = saliency_spread(results), profiles(results)
    if spread is not None:
        painters["saliency"] = lambda figure: draw_saliency(figure, spread)
    if kept:
        painters["delta_kept"] = lambda figure: draw_kept(figure, kept)
    return painters


def _draw_front(figure: Figure, plane: Front) -> None:
    plot = figure.subplots()
    plot.set(xlabel=f"{plane.axes[0]} (%)", ylabel=f"{plane.axes[1]} (%)")
    plot.margins(0.1)
    for point in plane.members:
        plot.plot(*_at(point), "D", color=INK, markersize=5, alpha=_strength(point), zorder=4)
    _draw_merged(plot, plane)
    plot.set(xlim=plot.get_xlim(), ylim=plot.get_ylim())  # what follows must not move them
    stairs = _draw_front_line(plot, plane)
    _draw_typical_error(plot, plane)
    legend_below(figure, plot, last=NO_METHODS)
    settle(figure)  # texts can be measured from here on
    place_labels(
        plot,
        [(*_at(point), point.name) for point in plane.members],
        points=[_at(point) for point in (*plane.members, *plane.merged)],
        line=stairs,
    )


def _draw_front_line(plot: Plot, plane: Front) -> list[tuple[float, float]]:
    """The staircase: what lies below and to the left of it is dominated. Returns its corners."""
    corners = [(100 * x, 100 * y) for x, y in plane.line]
    stairs = [(plot.get_xlim()[0], corners[0][1])]
    for x, y in corners:
        stairs += [(stairs[-1][0], y), (x, y)]
    stairs.append((corners[-1][0], plot.get_ylim()[0]))
    plot.plot(*zip(*stairs, strict=True), color=INK, linewidth=0.8, zorder=2, label=LINE)
    return stairs


def _draw_merged(plot: Plot, plane: Front) -> None:
    """AIM filled, plain merges hollow, and a thin line from the one through the others."""
    for path in plane.paths:
        colour, _ = method_style(path.method)
        xs, ys = zip(*[(100 * x, 100 * y) for x, y in path.places], strict=True)
        plot.plot(xs, ys, color=colour, linewidth=0.6, alpha=0.5, zorder=3)
    for point in plane.merged:
        colour, marker = method_style(point.method or "")
        style = {"alpha": _strength(point), "zorder": 5}
        fill = "white" if point.plain else colour
        plot.plot(*_at(point), marker, color=colour, markerfacecolor=fill, **style)
    for method in dict.fromkeys(point.method or "" for point in plane.merged):
        colour, marker = method_style(method)
        plot.plot([], [], marker, color=colour, label=method)
    if any(point.plain for point in plane.merged):
        _hollow_in_legend(plot)


def _draw_typical_error(plot: Plot, plane: Front) -> None:
    """One cross for all points: bars on each would hide them."""
    points = (*plane.members, *plane.merged)
    errors = [(p.x.stderr, p.y.stderr) for p in points]
    known = [(100 * x, 100 * y) for x, y in errors if x is not None and y is not None]
    if not known:
        return
    wide, high = (sorted(values)[len(values) // 2] for values in zip(*known, strict=True))
    x, y = emptiest_corner(plot, [_at(point) for point in points], (wide, high))
    plot.errorbar(
        x, y, xerr=wide, yerr=high, color="#888888", linewidth=0.8, capsize=1.5, zorder=1,
        label=ERROR,
    )  # fmt: skip


def _draw_series(figure: Figure, drawn: Sequence[Series], quantity: str) -> None:
    plot = figure.subplots()
    plot.set(xlabel="omega", ylabel=UNITS[quantity][0], xlim=(-0.03, 1.06))
    plot.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "null"])
    for number, each in enumerate(drawn):
        same_method = [other for other in drawn[:number] if other.method == each.method]
        line = LINE_STYLES[len(same_method) % len(LINE_STYLES)]
        step = min(SHIFT, SPREAD / len(drawn))
        shift = step * (number - (len(drawn) - 1) / 2)  # or error bars would hide one another
        _draw_line(plot, each, line, shift, quantity)
    if any(each.null for each in drawn):
        _hollow_in_legend(plot, line="--")
    legend_below(figure, plot, last=NO_METHODS)


def _draw_line(plot: Plot, each: Series, line: str, shift: float, quantity: str) -> None:
    """Runs joined by a line with error bars; the plain merge dashed, its own bar at the right."""
    colour, marker = method_style(each.method)
    style = {"color": colour, "marker": marker, "markersize": 4, "elinewidth": 0.7, "capsize": 1.5}
    places = [((run.first.record.omega or 0.0) + shift, run) for run in each.runs]
    known = [(x, run, spread) for x, run in places if (spread := run.spread(quantity))]
    if known:
        xs, runs, spreads = zip(*known, strict=True)
        plot.errorbar(
            xs, [_mean(s, quantity) for s in spreads], _bars(spreads, quantity), linestyle=line,
            label=each.name, **style,
        )  # fmt: skip
        for x, run in zip(xs, runs, strict=True):
            _draw_seeds(plot, x, run, quantity, colour)
    null = each.null and each.null.spread(quantity)
    if each.null and null:
        plot.axhline(_mean(null, quantity), color=colour, linestyle="--", linewidth=0.8, alpha=0.8)
        plot.errorbar(
            1 + shift, _mean(null, quantity), _bars([null], quantity), linestyle="",
            markerfacecolor="white", label="" if known else each.name, **style,
        )  # fmt: skip
        _draw_seeds(plot, 1 + shift, each.null, quantity, colour)


def _draw_seeds(plot: Plot, x: float, run: Repeats, quantity: str, colour: str) -> None:
    values = [UNITS[quantity][1] * value for value in run.values(quantity)]
    if len(values) > 1:
        plot.plot([x] * len(values), values, ".", color=colour, alpha=0.45, markersize=3, zorder=1)


def _mean(spread: Spread, quantity: str) -> float:
    return UNITS[quantity][1] * spread.mean


def _bars(spreads: Sequence[Spread], quantity: str) -> list[float] | None:
    errors = [spread.stderr for spread in spreads if spread.stderr is not None]
    return [UNITS[quantity][1] * error for error in errors] if len(errors) == len(spreads) else None


def _hollow_in_legend(plot: Plot, line: str = "") -> None:
    plot.plot(
        [], [], "o", color="#888888", markerfacecolor="white", linestyle=line, linewidth=0.8,
        label=PLAIN,
    )  # fmt: skip


def _at(point: Point) -> tuple[float, float]:
    """Where it lies, in percent."""
    return 100 * point.x.value, 100 * point.y.value


def _strength(point: Point) -> float:
    return 1.0 if point.on_front else 0.35
