"""Figures of AIM itself: how base's saliency is spread over channels, and what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from aim_exp.report.figures.canvas import colours_and_marks, legend_below
from aim_exp.report.figures.style import GREY, INK, INPUTS, LINE_STYLES, Mark
from aim_exp.report.relaxation import ALL, Profile, SaliencySpread, kinds_shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure, SubFigure

ROW = 0.155
"""Inches for a kind of module."""
PLACE = 0.022
"""Inches at least for each of the places in a row."""
DODGE = 0.7
"""Of a row's height, over which what is in it is spread."""
LEAST = 1e-3
"""Of s / max s: with less, AIM leaves a channel as it is."""
MEAN_R, RANGE = "mean r", "range over settings"
WHISKER = {"linewidth": 1.4, "alpha": 0.6, "solid_capstyle": "butt"}


def draw_saliency(figure: Figure, spread: SaliencySpread) -> None:
    """Channels in falling order, a line for each input; below, each layer's mean as a heat map.

    The rows of the heat map are the legend of the lines.
    """
    rows = len(spread.inputs)
    heights = (1.6, ROW * rows)
    figure.set_figheight(sum(heights) + 0.85)
    ratios = (heights[0] + 0.45, heights[1] + 0.4)  # with the texts below the axes
    parts: Any = figure.subfigures(2, 1, height_ratios=ratios)
    above, below = parts
    lines, heat = above.subplots(), below.subplots()
    lowest = min(each.falling.min() for each in spread.inputs)
    lines.set(xscale="log", xlim=(spread.channels[0], 1))
    lines.set(yscale="log", ylim=(max(LEAST, lowest), 1.1))
    lines.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    lines.set(xlabel="channels, most salient first", ylabel="s / max s")
    lines.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    lines.minorticks_off()
    for row, each in enumerate(spread.inputs):
        lines.plot(spread.channels, each.falling, **_line(row))
    _draw_heat(below, heat, spread)


def _draw_heat(figure: SubFigure, plot: Plot, spread: SaliencySpread) -> None:
    layers = spread.layers
    beside = any(None in each.layers for each in spread.inputs)
    columns = [*layers, None] if beside else [*layers]
    cells = np.array(
        [[each.layers.get(layer, np.nan) for layer in columns] for each in spread.inputs]
    )
    plot.grid(visible=False)
    wide = max(1.0, len(layers) / 5)  # what lies in no layer, however many there are
    edges = [*range(len(layers) + 1), *([len(layers) + wide] if beside else [])]
    image = plot.pcolormesh(
        edges,
        np.arange(len(cells) + 1) - 0.5,
        cells,
        cmap="cividis",
        norm="log",
        vmin=min(0.1, np.nanmin(cells)),
        vmax=1,
    )
    plot.set(ylim=(len(cells) - 0.5, -0.5), xlim=(0, edges[-1]))
    plot.set_yticks(range(len(cells)), [each.name for each in spread.inputs])
    plot.tick_params(axis="y", length=0, pad=19)
    step = max(1, -(-len(layers) // 4))
    ticks = list(range(0, len(layers), step))
    names = [str(layers[tick]) for tick in ticks]
    ticks = [tick + 0.5 for tick in ticks]
    if beside:
        plot.axvline(len(layers), color="white", linewidth=2)
        ticks.append(len(layers) + wide / 2)
        names.append("none")
    plot.set_xticks(ticks, names)
    plot.set_xlabel("layer")
    for side in plot.spines.values():
        side.set_visible(False)
    for row in range(len(cells)):  # a piece of the line above, between its name and its cells
        plot.plot(
            (-0.075, -0.015), (row, row), transform=plot.get_yaxis_transform(), clip_on=False,
            **_line(row),
        )  # fmt: skip
    bar = figure.colorbar(image, ax=plot, pad=0.02, aspect=12)
    bar.set_label("mean s / max s", fontsize=7)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bar.ax.yaxis.set_minor_formatter("")


def _line(row: int) -> dict:
    return {
        "color": INPUTS[row % len(INPUTS)],
        "linestyle": LINE_STYLES[row // len(INPUTS) % len(LINE_STYLES)],
    }


def draw_kept(figure: Figure, profiles: Sequence[Profile]) -> None:
    """A row for each kind of module, and in it a place for each method and setting; omegas above.

    Each has its own height in a row, or markers would hide one another.
    """
    kinds = kinds_shown(profiles)
    lines = list(dict.fromkeys((profile.method, profile.setting) for profile in profiles))
    row = max(ROW, PLACE * len(lines) / DODGE)
    figure.set_figheight(row * (len(kinds) + 1) + 0.95)
    plot = figure.subplots()
    styles = colours_and_marks(plot, lines, joined=False)
    plot.set_yticks(range(-1, len(kinds)), ["omega", *kinds])
    plot.tick_params(axis="y", length=0)
    plot.set(ylim=(len(kinds) - 0.4, -1.6), xlabel="share of the delta kept")
    plot.axhline(-0.5, color=INK, linewidth=0.6)
    plot.axhline(0.5, color=INK, linewidth=0.4)
    _draw_mean_r(plot, profiles, kinds)
    for profile in profiles:
        line = profile.method, profile.setting
        shift = DODGE * ((lines.index(line) + 0.5) / len(lines) - 0.5)
        _draw_profile(plot, profile, kinds, styles[line], shift)
    _name_omegas(plot, profiles)
    if any(profile.ranges for profile in profiles):
        plot.plot([], [], color=GREY, label=RANGE, **WHISKER)
    legend_below(figure, last=[RANGE, MEAN_R])


def _draw_profile(
    plot: Plot, profile: Profile, kinds: Sequence[str], style: tuple[str, Mark], shift: float
) -> None:
    colour, mark = style
    rows = [row for row, kind in enumerate(kinds) if kind in profile.kept]
    for row in rows:
        if found := profile.ranges.get(kinds[row]):
            plot.plot(found, (row + shift, row + shift), color=colour, **WHISKER)
    plot.plot(
        [profile.kept[kinds[row]] for row in rows], [row + shift for row in rows], linestyle="",
        color=colour, markersize=4, markeredgewidth=0.5, **mark.style,
    )  # fmt: skip


def _draw_mean_r(plot: Plot, profiles: Sequence[Profile], kinds: Sequence[str]) -> None:
    """Where the deltas would be if they lay on all channels alike."""
    places = {
        (profile.mean_r[kind], row)
        for profile in profiles
        for row, kind in enumerate(kinds)
        if kind in profile.mean_r
    }
    xs, ys = zip(*sorted(places), strict=True)
    plot.plot(
        xs, ys, "|", color="#999999", markersize=9, markeredgewidth=0.9, zorder=1, label=MEAN_R
    )


def _name_omegas(plot: Plot, profiles: Sequence[Profile]) -> None:
    """Each above what is kept of all its deltas."""
    kept: dict[float, list[float]] = {}
    for profile in profiles:
        kept.setdefault(profile.omega, []).append(profile.kept[ALL])
    for omega, values in kept.items():
        plot.text(fmean(values), -1, f"{omega:g}", ha="center", va="center", fontsize=7)
