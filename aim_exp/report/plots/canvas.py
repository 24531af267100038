"""What all figures for papers share: the canvas, the files, the legend below."""

from __future__ import annotations

import logging
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aim_exp.report.files import write_atomically
from aim_exp.report.paper import AS_IT_IS, Paper
from aim_exp.report.plots.style import GREY, HEIGHT, HOLLOW, RC, WIDTH, Look, Name, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

PLAIN = "plain merge"
"""In the legends."""
DRAWS = "dots: one model each"
LEGEND_ROW = 0.15
"""Inches."""
COLOURS = 64
"""Enough for what is drawn small, a third of the bytes that all shades take."""
PANELS = 4
"""At most, of one figure."""
TITLE = 48
"""Characters of a line above a panel."""


def save(
    name: str,
    paint: Callable[[Figure], None],
    folder: Path,
    *,
    vector: bool = True,
    paper: Paper = AS_IT_IS,
) -> Path:
    """One figure as PNG and PDF; if `vector` is false, as a PNG that takes little room.

    Nothing global is set.
    """
    import matplotlib
    from PIL import Image

    figure = painted(paint, paper)

    def pixels(path: Path) -> None:
        figure.savefig(path, dpi=200)
        if not vector:
            Image.open(path).convert("RGB").quantize(COLOURS).save(path, "PNG", optimize=True)

    rc: Any = RC
    with matplotlib.rc_context(rc):
        if vector:
            write_atomically(folder / f"{name}.pdf", figure.savefig)
        return write_atomically(folder / f"{name}.png", pixels)


def painted(paint: Callable[[Figure], None], paper: Paper = AS_IT_IS) -> Figure:
    """A figure, laid out: as wide, in the font and with the names that a paper wants."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells the log of each glyph
    rc: Any = RC | ({"font.family": paper.font} if paper.font else {})  # keys typed as literals
    with matplotlib.rc_context(rc):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        for text in figure.findobj(Text) if paper.names else ():
            assert isinstance(text, Text)
            text.set_text(paper.write(text.get_text()))
        for axis in (axis for plot in figure.axes for axis in (plot.xaxis, plot.yaxis)):
            if isinstance(fixed := axis.get_major_formatter(), FixedFormatter):
                axis.set_major_formatter(FixedFormatter([paper.write(str(t)) for t in fixed.seq]))
        if paper.width:
            figure.set_figwidth(paper.width)
        settle(figure)
    return figure


def settle(figure: Figure) -> None:
    """Lay the figure out, once: each file that it is saved to would do so again.

    What is drawn later can measure what is there.
    """
    engine = figure.get_layout_engine()
    if engine:
        engine.execute(figure)
        figure.set_layout_engine(None)  # "none" would keep a stand-in that draws everything twice


def panels(figure: Figure, titles: Sequence[str]) -> list[Plot]:
    """A plot below each title, two side by side, each as large as one alone; they share axes."""
    columns = min(2, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure.set_size_inches(WIDTH * columns, HEIGHT * rows)
    plots: list[Plot] = []
    for number, title in enumerate(titles, 1):
        first = plots[0] if plots else None
        plot = figure.add_subplot(rows, columns, number, sharex=first, sharey=first)
        lines = [textwrap.fill(line, TITLE) for line in title.splitlines()]
        plot.set_title("\n".join(lines), loc="left", fontsize=7)
        plots.append(plot)
    return plots


def legend_below(figure: Figure, *, last: Sequence[str] = (), title: str = "") -> None:
    """Below the plots, where it hides nothing; the figure grows by what more than two rows take.

    What has one name stands there once. `title` comes first, the entries of `last` last, as there.
    """
    entries = {
        name: handle
        for plot in reversed(figure.axes)
        for handle, name in zip(*plot.get_legend_handles_labels(), strict=True)
    }
    names = sorted(entries, key=lambda name: last.index(name) + 1 if name in last else 0)
    longest = max(map(len, names))
    columns = 3 if longest < 16 else 2 if longest < 32 else 1
    columns *= round(figure.get_figwidth() / WIDTH)
    rows = math.ceil(len(names) / columns) + bool(title)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * max(0, rows - 2))
    figure.legend(
        [entries[name] for name in names], names, loc="outside lower center", ncols=columns,
        columnspacing=1, handletextpad=0.4, title=title, title_fontsize=7,
    )  # fmt: skip


def name_looks(plot: Plot, looks: Mapping[Name, Look], *, joined: bool) -> None:
    """The legend's entries for methods and settings, once each; `joined`: points are, by lines.

    A method whose settings have marks is a patch of colour, a setting's mark is grey.
    """
    for name, look, is_patch in legend(looks):
        line = look.line if joined or is_patch else {**look.line, "linestyle": ""}
        point = {"marker": ""} if is_patch else look.point
        plot.plot([], [], **{**point, **line}, linewidth=3 if is_patch else 1.2, label=name)


def draw_draws(plot: Plot, places: Sequence[tuple[float, float]], colour: str) -> None:
    """A dot for each of several seeds."""
    xs, ys = zip(*places, strict=True) if places else ((), ())
    plot.plot(xs, ys, ".", color=colour, alpha=0.45, markersize=3, zorder=1)


def hollow_in_legend(plot: Plot, line: str = "") -> None:
    """What a hollow marker is, in grey; `line` goes through it."""
    plot.plot(
        [], [], marker="o", color=GREY, **HOLLOW, linestyle=line, linewidth=0.8, label=PLAIN,
    )  # fmt: skip
