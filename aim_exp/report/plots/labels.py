"""Places for texts in a figure, so that nothing lies on anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from aim_exp.report.plots.style import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox, BboxBase

Place = tuple[float, float]
Offset = tuple[float, float, Literal["left", "center", "right"], Literal["top", "center", "bottom"]]

# Around the point, in points: right and left first, then above and below, then the corners.
BESIDE: tuple[Offset, ...] = (
    (6, 0, "left", "center"), (-6, 0, "right", "center"), (0, 6, "center", "bottom"),
    (0, -6, "center", "top"), (5, 5, "left", "bottom"), (-5, 5, "right", "bottom"),
    (5, -5, "left", "top"), (-5, -5, "right", "top"),
)  # fmt: skip
FARTHER = (2.0, 3.0, 4.5)
"""Times as far, with a line to the point: where there is no room beside it."""
ALONG = (0.4, 0.55, 0.7, 0.85, 1.0)
"""Parts of such a line that nothing should lie on."""
POINT, CLEARANCE = 7, 3
"""Pixels kept free around points and lines."""
OUTSIDE = 2.0
"""Cost of a pixel beyond the frame; of one that is covered: 1."""
FAR = 0.5
"""Cost of a point of distance."""


def place_labels(
    plot: Axes,
    labels: Sequence[tuple[float, float, str]],
    points: Sequence[Place],
    lines: Sequence[Sequence[Place]],
) -> None:
    """Write each text (x, y, text) beside its place, where it covers least of what is drawn.

    `lines` run along the axes only: their pieces are then boxes, as the markers are.
    """
    spots = plot.transData.transform(list(points)).tolist()
    taken = [_box_around(spot, spot, POINT) for spot in spots]
    for line in lines:
        corners = plot.transData.transform(list(line)).tolist()
        taken += [_box_around(start, end, CLEARANCE) for start, end in pairwise(corners)]
    for x, y, text in sorted(labels):  # texts at the left edge have the least room
        best = _best_offset(plot, (x, y), text, taken)
        note = _note(plot, (x, y), text, best)
        taken.append(note.get_window_extent().padded(CLEARANCE))
        if best not in BESIDE:
            line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
            plot.annotate(
                "", (x, y), best[:2], textcoords="offset points", arrowprops=line, zorder=3
            )
            taken += _trail(plot, (x, y), best)


def _best_offset(plot: Axes, place: Place, text: str, taken: Sequence[Bbox]) -> Offset:
    boxes = np.array([box.extents for box in taken])

    def cost(offset: Offset) -> float:
        note = _note(plot, place, text, offset)
        box = note.get_window_extent()
        note.remove()
        trail = [] if offset in BESIDE else _trail(plot, place, offset)
        covered = sum(_overlap(part, boxes) for part in (box, *trail))
        outside = box.width * box.height - _overlap(box, np.array([plot.bbox.extents]))
        return covered + OUTSIDE * outside + FAR * math.hypot(*offset[:2])

    farther: list[Offset] = [
        (times * dx, times * dy, across, up) for times in FARTHER for dx, dy, across, up in BESIDE
    ]
    return min((*BESIDE, *farther), key=cost)


def _trail(plot: Axes, place: Place, offset: Offset) -> list[Bbox]:
    """What the line from a point to its text lies on, but for its beginning."""
    x, y = plot.transData.transform(place).tolist()
    figure = plot.get_figure(root=True)
    assert figure, "texts are placed in a figure"
    pixels = figure.dpi / 72
    steps = [(x + part * offset[0] * pixels, y + part * offset[1] * pixels) for part in ALONG]
    return [_box_around(step, step, CLEARANCE) for step in steps]


def _note(plot: Axes, place: Place, text: str, offset: Offset) -> Annotation:
    dx, dy, across, up = offset
    return plot.annotate(
        text, place, (dx, dy), textcoords="offset points", ha=across, va=up, fontsize=7, zorder=6
    )


def _box_around(first: Place, second: Place, room: float) -> Bbox:
    from matplotlib.transforms import Bbox

    (x0, x1), (y0, y1) = sorted((first[0], second[0])), sorted((first[1], second[1]))
    return Bbox.from_extents(x0 - room, y0 - room, x1 + room, y1 + room)


def _overlap(box: BboxBase, others: NDArray[np.float64]) -> float:
    """The sum of what `box` has in common with each of `others`: [n, 4], as `Bbox.extents`."""
    x0, y0, x1, y1 = others.T
    width = np.minimum(box.x1, x1) - np.maximum(box.x0, x0)
    height = np.minimum(box.y1, y1) - np.maximum(box.y0, y0)
    return float((width.clip(0) * height.clip(0)).sum())
