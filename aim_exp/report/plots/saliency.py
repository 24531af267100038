"""How base's saliency is spread: over channels, for each input of its modules, and over layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aim_exp.checkpoint.names import kind_of, layer_of
from aim_exp.report.grouped import grouped
from aim_exp.report.plots.style import MUTED
from aim_exp.report.rows import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure, SubFigure

Floats = NDArray[np.float64]
POINTS = 200
"""Of a curve over the channels."""
ROW = 0.155
"""Inches for an input in the heat map."""
LEAST = 1e-3
"""Of s / max s: with less, AIM leaves a channel as it is."""
LINE_STYLES = ("-", "-.", ":")
"""For several lines of one colour."""


@dataclass(frozen=True)
class Input:
    """An input of a model's modules, the same in every layer, and how even its channels are."""

    name: str
    """The kinds of modules that read it: `q/k/v_proj`."""
    falling: Floats
    """[points]: s / max s of the channels in falling order, by `Spread.channels`; mean over the
    layers. r is 1 minus (1 - omega) times this."""
    layers: Mapping[int | None, float]
    """By layer, the mean of s / max s: 1 where AIM pulls on all channels alike. None is what lies
    in no layer."""


@dataclass(frozen=True)
class SaliencySpread:
    """Inputs, from even to concentrated."""

    channels: Floats
    """[points]: shares of the channels, the most salient first; even on a log scale."""
    inputs: tuple[Input, ...]

    @property
    def layers(self) -> list[int]:
        return sorted({n for each in self.inputs for n in each.layers if n is not None})


def saliency_file(report: Report) -> Path | None:
    """The one that most runs used; None where none did. It may be missing from its folder."""
    records = [(job.directory, job.record) for job in report.runs.jobs if job.record]
    used = Counter((folder / r.saliency).resolve() for folder, r in records if r.saliency)
    return used.most_common(1)[0][0] if used else None


def saliency_spread(report: Report) -> SaliencySpread | None:
    """Of the saliency that most runs used; None where none did, or where its file is gone."""
    from safetensors.numpy import load_file

    path = saliency_file(report)
    if path is None or not path.is_file():
        return None
    return spread({name: raw.astype(float) for name, raw in load_file(path).items()})


def spread(saliency: Mapping[str, Floats]) -> SaliencySpread:
    """`saliency` maps the name of a weight to its raw statistic, [channels]."""
    relaxed = (pair for pair in saliency.items() if pair[1].max() > 0)  # AIM leaves others alone
    by_kind = {kind: dict(of) for kind, of in grouped((kind_of(p[0]), p) for p in relaxed).items()}
    shared = grouped((b"".join(t.tobytes() for t in of.values()), kind)
                     for kind, of in by_kind.items())  # fmt: skip
    widest = max(len(channels) for channels in saliency.values())
    grid = np.geomspace(1 / widest, 1, POINTS)
    inputs = [_input(kinds, by_kind[kinds[0]], grid) for kinds in shared.values()]
    inputs.sort(key=lambda each: fmean(each.layers.values()), reverse=True)
    return SaliencySpread(grid, tuple(inputs))


def _input(kinds: Sequence[str], tensors: Mapping[str, Floats], grid: Floats) -> Input:
    means = ((layer_of(name), float(s.mean() / s.max())) for name, s in tensors.items())

    def falling(channels: Floats) -> Floats:
        """s / max s at the channels that stand at `grid`, shares of all, in falling order."""
        ranks = np.arange(1, len(channels) + 1) / len(channels)
        return np.interp(grid, ranks, np.sort(channels)[::-1] / channels.max())

    return Input(
        name=joined(kinds),
        falling=np.mean([falling(channels) for channels in tensors.values()], axis=0),
        layers={layer: fmean(values) for layer, values in grouped(means).items()},
    )


def joined(kinds: Sequence[str]) -> str:
    """`q_proj`, `k_proj` and `v_proj` as `q/k/v_proj`."""
    beginnings, endings = zip(*(kind.rpartition("_")[::2] for kind in kinds), strict=True)
    if len(kinds) > 1 and all(beginnings) and len(set(endings)) == 1:
        return f"{'/'.join(beginnings)}_{endings[0]}"
    return "/".join(kinds)


def draw_saliency(figure: Figure, shown: SaliencySpread) -> None:
    """Channels in falling order, a line for each input; below, each layer's mean as a heat map.

    The rows of the heat map are the legend of the lines.
    """
    heights = (1.6, ROW * len(shown.inputs))
    figure.set_figheight(sum(heights) + 0.85)
    ratios = (heights[0] + 0.45, heights[1] + 0.4)  # with the texts below the axes
    parts: Any = figure.subfigures(2, 1, height_ratios=ratios)
    lines, heat = parts[0].subplots(), parts[1].subplots()
    lowest = min(each.falling.min() for each in shown.inputs)
    lines.set(xscale="log", xlim=(shown.channels[0], 1))
    lines.set(yscale="log", ylim=(max(LEAST, lowest), 1.1))
    lines.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    lines.set(xlabel="channels, most salient first", ylabel="s / max s")
    lines.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    lines.minorticks_off()
    for row, each in enumerate(shown.inputs):
        lines.plot(shown.channels, each.falling, **_line(row))
    _draw_heat(parts[1], heat, shown)


def _draw_heat(figure: SubFigure, plot: Plot, shown: SaliencySpread) -> None:
    layers = shown.layers
    beside = any(None in each.layers for each in shown.inputs)
    columns = [*layers, None] if beside else [*layers]
    cells = np.array(
        [[each.layers.get(layer, np.nan) for layer in columns] for each in shown.inputs]
    )
    plot.grid(visible=False)
    wide = max(1.0, len(layers) / 5)  # what lies in no layer, however many there are
    edges = [*range(len(layers) + 1), *([len(layers) + wide] if beside else [])]
    image = plot.pcolormesh(
        edges, np.arange(len(cells) + 1) - 0.5, cells, cmap="cividis", norm="log",
        vmin=min(0.1, np.nanmin(cells)), vmax=1,
    )  # fmt: skip
    plot.set(ylim=(len(cells) - 0.5, -0.5), xlim=(0, edges[-1]))
    plot.set_yticks(range(len(cells)), [each.name for each in shown.inputs])
    plot.tick_params(axis="y", length=0, pad=19)
    step = max(1, -(-len(layers) // 4))
    names = {place + 0.5: str(layers[place]) for place in range(0, len(layers), step)}
    if beside:
        plot.axvline(len(layers), color="white", linewidth=2)
        names[len(layers) + wide / 2] = "none"
    plot.set_xticks(list(names), list(names.values()))
    plot.set_xlabel("layer")
    for side in plot.spines.values():
        side.set_visible(False)
    for row in range(len(cells)):  # a piece of the line above, between its name and its cells
        plot.plot((-0.075, -0.015), (row, row), transform=plot.get_yaxis_transform(),
                  clip_on=False, **_line(row))  # fmt: skip
    bar = figure.colorbar(image, ax=plot, pad=0.02, aspect=12)
    bar.set_label("mean s / max s", fontsize=7)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bar.ax.yaxis.set_minor_formatter("")


def _line(row: int) -> dict[str, Any]:
    return {
        "color": MUTED[row % len(MUTED)],
        "linestyle": LINE_STYLES[row // len(MUTED) % len(LINE_STYLES)],
    }
