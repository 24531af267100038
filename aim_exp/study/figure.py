"""A study's differences as a figure: each with its interval, its replicates and the margin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aim_exp.report.plots.canvas import draw_draws, save
from aim_exp.report.plots.style import GREY, HEIGHT, INK, METHODS, WIDTH
from aim_exp.store.study_lock import read_lock
from aim_exp.study.findings import contrast_name, contrasts, test_replicates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW = 0.22
"""Inches."""
BELOW = 0.25
"""Where a difference's replicates are, in rows: under its line, which would hide them."""
TESTED = METHODS["ties"][0]
"""The colour of what has a verdict."""


def save_figure(path: Path) -> Path:
    """The figure of the locked study, as PNG and PDF beside the lock; the PNG.

    A line for each difference of averages in points, what is tested in colour: its interval of
    95 %, a dot for each replicate; the margin is a band. Raises AimError where nothing is kept.
    """
    lock = read_lock(path)
    tests = contrasts(lock, test_replicates(path, lock))

    def paint(figure: Figure) -> None:
        figure.set_size_inches(1.6 * WIDTH, max(HEIGHT * 0.6, ROW * (len(tests) + 3)))
        plot = figure.add_subplot()
        plot.axvspan(-lock.margin, lock.margin, color=GREY, alpha=0.15, linewidth=0)
        plot.axvline(0, color=GREY, linewidth=0.8)
        tested = {lock.primary, *lock.secondary}
        for place, (contrast, test) in enumerate(tests.items()):
            colour = TESTED if contrast in tested else INK
            draw_draws(plot, [(value, place + BELOW) for value in test.values], colour)
            plot.plot(test.difference, place, "o", color=colour)
            if test.low is not None and test.high is not None:
                plot.plot([test.low, test.high], [place, place], color=colour)
        plot.set_yticks(range(len(tests)), [contrast_name(contrast) for contrast in tests])
        plot.set_ylim(len(tests) - 0.5, -0.5)
        plot.grid(visible=False, axis="y")
        plot.set_xlabel(f"average, points; n = {next(iter(tests.values())).n}")

    return save(path.stem, paint, path.parent)
