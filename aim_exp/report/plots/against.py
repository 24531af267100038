"""A quantity against any setting that was swept: a line per method and other settings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

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
)
from aim_exp.report.plots.series import Axis, Series, Sweep
from aim_exp.report.plots.style import HOLLOW, Look
from aim_exp.report.rows import GAIN, Group, Row, margin_words
from aim_exp.report.units import unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

BARS = {"markersize": 4, "elinewidth": 0.7, "capsize": 1.5}


def draw_sweep(figure: Figure, sweep: Sweep, quantity: str) -> None:
    """A panel for each group, of the first few.

    A plain merge is hollow, and dashed through the whole panel; what is relaxed without the setting
    is a dotted line.
    """
    known = [each for each in sweep.series if any(quantity in r.estimates for r in each.path)]
    shown = list(grouped((each.group.number, each) for each in known).values())[:PANELS]
    groups = [members[0].group for members in shown]
    plots = panels(figure, [group.title for group in groups])
    series = [*chain(*shown)]
    name_looks(plots[0], {each.names: each.look for each in series}, joined=sweep.axis.is_line)
    rows = [row for each in series for row in each.path]
    if any(each.level and not each.level.relaxed for each in series):
        hollow_in_legend(plots[0], line="--")
    elif not all(row.relaxed for row in rows):
        hollow_in_legend(plots[0])
    for plot, members in zip(plots, shown, strict=True):
        _prepare(plot, sweep.axis, quantity)
        _draw_group(plot, members, quantity)
    estimates = [row.estimates[quantity] for row in rows if quantity in row.estimates]
    bars = margin_words(groups)
    dots = any(len(estimate.values) > 1 for estimate in estimates)
    title = "; ".join([f"bars: ±1 {bars}"] * bool(bars) + [DRAWS] * dots)
    legend_below(figure, last=[PLAIN], title=title)


def _prepare(plot: Plot, axis: Axis, quantity: str) -> None:
    title = quantity if quantity == GAIN else f"{quantity} (%)"
    plot.set(xlabel=axis.title, ylabel=title, xlim=axis.limits)
    plot.set_xticks(list(axis.ticks), list(axis.ticks.values()))
    if max(map(len, axis.ticks.values())) * len(axis.ticks) > 40:
        plot.tick_params(axis="x", rotation=30)


def _draw_group(plot: Plot, series: Sequence[Series], quantity: str) -> None:
    levels = set()
    for each in series:
        known = [(x, row) for x, row in zip(each.places, each.rows, strict=True)
                 if quantity in row.estimates]  # fmt: skip
        if known:
            xs, ys = zip(*((x, _mean(row, quantity)) for x, row in known), strict=True)
            plot.plot(xs, ys, **each.look.line)
        if each.level and quantity in each.level.estimates and each.level.key not in levels:
            levels.add(each.level.key)  # what several series share is drawn once
            plot.axhline(
                _mean(each.level, quantity), color=each.look.colour, linewidth=0.8, alpha=0.8,
                linestyle=":" if each.level.relaxed else "--",
            )  # fmt: skip
            if each.level_place is not None:
                known.append((each.level_place, each.level))
        for relaxed in (True, False):
            points = [(x, row) for x, row in known if row.relaxed == relaxed]
            _draw_points(plot, each.group, points, each.look, quantity)


def _draw_points(
    plot: Plot, group: Group, points: Sequence[tuple[float, Row]], look: Look, quantity: str
) -> None:
    """Points with their bars, and a dot for each draw; all are relaxed, or none is."""
    if not points:
        return
    style = look.point | ({} if points[0][1].relaxed else HOLLOW)
    margins = (group.margin(row.estimates[quantity]) or 0.0 for _, row in points)
    factor = unit(quantity).factor
    errors = [factor * margin for margin in margins]
    plot.errorbar(
        [x for x, _ in points], [_mean(row, quantity) for _, row in points],
        errors if any(errors) else None, linestyle="", **BARS, **style,
    )  # fmt: skip
    draws = [
        (x, factor * value)
        for x, row in points
        if len(values := row.estimates[quantity].values) > 1
        for value in values
    ]
    draw_draws(plot, draws, look.colour)


def _mean(row: Row, quantity: str) -> float:
    return unit(quantity).factor * row.estimates[quantity].mean
