"""The figures, drawn with matplotlib as PNG and PDF: one column of a paper wide."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aim_exp.report.files import write_atomically
from aim_exp.report.labels import emptiest_corner, place_labels
from aim_exp.report.plots import Axes, Curve, Front, Point, curves, front
from aim_exp.report.results import Job, Results
from aim_exp.report.style import HEIGHT, INK, RC, WIDTH, method_style

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
    "omega 1 equals). Bars: one standard error.",
    "omega_gain": "Hypervolume gain over base and the merged experts against omega. Dashed: "
    "the plain merge (omega null, which omega 1 equals).",
}


Quantity = Callable[[Job], tuple[float, float | None] | None]
"""What a figure shows of a job, in its units, and the standard error."""
PLAIN, LINE, ERROR = NO_METHODS = ("plain merge", "front", "±1 standard error (median)")
"""Entries of the legends that name no method; they come last."""
LEGEND_ROW = 0.15
"""Inches."""
LINE_STYLES = ("-", "-.", ":")
"""For several curves of one method, which share its colour."""
SHIFT = 0.008
"""Between neighbouring curves, in omega, and at most `SPREAD` over all."""
SPREAD = 0.04


def due(directory: Path, seconds: float = 30) -> bool:
    """Whether the figures of `directory` are missing, or older than `seconds`."""
    drawn = [path.stat().st_mtime for path in (directory / FOLDER).glob("*.png")]
    return not drawn or time.time() - max(drawn) > seconds


def draw(results: Results, directory: Path, axes: Axes | None = None) -> list[Path]:
    """Draw what there is to draw into `directory/figures`; returns the PNG files."""
    plane = front(results, axes)
    lines = curves(results)
    pictures: dict[str, Callable[[Figure], None]] = {}
    if plane is not None:
        pictures[FRONT] = lambda figure: _draw_front(figure, plane)
    if any(len(curve.runs) + (curve.null is not None) > 1 for curve in lines):
        pictures["omega_average"] = lambda figure: _draw_curves(
            figure, lines, "average score (%)", _average
        )
        if any(_gain(job) for curve in lines for job in curve.runs):
            pictures["omega_gain"] = lambda figure: _draw_curves(
                figure, lines, "hypervolume gain", _gain
            )
    return [_save(name, paint, directory / FOLDER) for name, paint in pictures.items()]


def _save(name: str, paint: Callable[[Figure], None], folder: Path) -> Path:
    """Both formats of one figure; the settings and the canvas are its own, never global."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rc: Any = RC  # matplotlib types the keys as literals
    with matplotlib.rc_context(rc):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        write_atomically(folder / f"{name}.pdf", figure.savefig)
        return write_atomically(folder / f"{name}.png", lambda path: figure.savefig(path, dpi=200))


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
    _legend(figure, plot)
    figure.draw_without_rendering()  # settles the layout, so that texts can be measured
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


def _draw_curves(figure: Figure, drawn: Sequence[Curve], ylabel: str, quantity: Quantity) -> None:
    plot = figure.subplots()
    plot.set(xlabel="omega", ylabel=ylabel, xlim=(-0.03, 1.06))
    plot.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "null"])
    for number, curve in enumerate(drawn):
        same_method = [other for other in drawn[:number] if other.method == curve.method]
        line = LINE_STYLES[len(same_method) % len(LINE_STYLES)]
        step = min(SHIFT, SPREAD / len(drawn))
        shift = step * (number - (len(drawn) - 1) / 2)  # or error bars would hide one another
        _draw_curve(plot, curve, line, shift, quantity)
    if any(curve.null for curve in drawn):
        _hollow_in_legend(plot, line="--")
    _legend(figure, plot)


def _draw_curve(plot: Plot, curve: Curve, line: str, shift: float, quantity: Quantity) -> None:
    """Runs joined by a line with error bars; the plain merge dashed, its own bar at the right."""
    colour, marker = method_style(curve.method)
    style = {"color": colour, "marker": marker, "markersize": 4, "elinewidth": 0.7, "capsize": 1.5}
    values = [(job.record.omega, quantity(job)) for job in curve.runs]
    known = [(omega + shift, *value) for omega, value in values if omega is not None and value]
    if known:
        xs, ys, errors = zip(*known, strict=True)
        bars = None if None in errors else errors
        plot.errorbar(xs, ys, bars, linestyle=line, label=curve.name, **style)
    null = quantity(curve.null) if curve.null else None
    if null:
        value, error = null
        plot.axhline(value, color=colour, linestyle="--", linewidth=0.8, alpha=0.8)
        plot.errorbar(
            1 + shift, value, error, linestyle="", markerfacecolor="white", **style,
            label="" if known else curve.name,
        )  # fmt: skip


def _average(job: Job) -> tuple[float, float | None] | None:
    """In percent, with its error."""
    average = job.merged.average if job.merged else None
    if average is None:
        return None
    return 100 * average.value, None if average.stderr is None else 100 * average.stderr


def _gain(job: Job) -> tuple[float, float | None] | None:
    gain = job.record.hypervolume_gain
    return None if gain is None else (gain, None)


def _hollow_in_legend(plot: Plot, line: str = "") -> None:
    plot.plot(
        [], [], "o", color="#888888", markerfacecolor="white", linestyle=line, linewidth=0.8,
        label=PLAIN,
    )  # fmt: skip


def _legend(figure: Figure, plot: Plot) -> None:
    """Below the plot, where it hides nothing; the figure grows by what more than two rows take."""
    entries = list(zip(*plot.get_legend_handles_labels(), strict=True))
    entries.sort(key=lambda entry: entry[1] in NO_METHODS)
    handles, names = zip(*entries, strict=True)
    longest = max(map(len, names))
    columns = 3 if longest < 16 else 2 if longest < 32 else 1
    rows = math.ceil(len(names) / columns)
    figure.set_figheight(HEIGHT + LEGEND_ROW * max(0, rows - 2))
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, columnspacing=1,
        handletextpad=0.4,
    )  # fmt: skip


def _at(point: Point) -> tuple[float, float]:
    """Where it lies, in percent."""
    return 100 * point.x.value, 100 * point.y.value


def _strength(point: Point) -> float:
    return 1.0 if point.on_front else 0.35
