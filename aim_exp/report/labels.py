"""Places for texts in a figure, so that nothing lies on anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox, BboxBase

Place = tuple[float, float]
Offset = tuple[float, float, Literal["left", "center", "right"], Literal["top", "center", "bottom"]]

# Around the point, in points: right and left first, then above and below, then the corners.
OFFSETS: tuple[Offset, ...] = (
    (6, 0, "left", "center"), (-6, 0, "right", "center"), (0, 6, "center", "bottom"),
    (0, -6, "center", "top"), (5, 5, "left", "bottom"), (-5, 5, "right", "bottom"),
    (5, -5, "left", "top"), (-5, -5, "right", "top"),
)  # fmt: skip
CLEARANCE = 3
"""Pixels kept free around points and lines."""


def place_labels(
    plot: Axes,
    labels: Sequence[tuple[float, float, str]],
    points: Sequence[Place],
    line: Sequence[Place],
) -> None:
    """Write each text (x, y, text) beside its place, where it covers least of what is drawn.

    `line` runs along the axes only: its pieces are then boxes, as the markers are.
    """
    spots = plot.transData.transform(list(points)).tolist()
    corners = plot.transData.transform(list(line)).tolist()
    taken = [_box_around(spot, spot) for spot in spots]
    taken += [_box_around(start, end) for start, end in pairwise(corners)]
    for x, y, text in labels:
        candidates = [_note(plot, (x, y), text, offset) for offset in OFFSETS]
        boxes = [note.get_window_extent() for note in candidates]
        costs = [_covered(box, taken, plot.bbox) for box in boxes]
        best = costs.index(min(costs))
        taken.append(boxes.pop(best))
        candidates.pop(best)
        for note in candidates:
            note.remove()


def _note(plot: Axes, place: Place, text: str, offset: Offset) -> Annotation:
    dx, dy, across, up = offset
    return plot.annotate(
        text, place, (dx, dy), textcoords="offset points", ha=across, va=up, fontsize=7, zorder=6
    )


def emptiest_corner(plot: Axes, points: Sequence[Place], half_size: Place) -> Place:
    """Where a thing of `half_size` fits into a corner, farthest from all points (data units)."""
    to_axes = plot.transData - plot.transAxes
    origin, tip = to_axes.transform([(0.0, 0.0), half_size])
    margin = tip - origin + 0.03
    corners = [(x, y) for x in (margin[0], 1 - margin[0]) for y in (margin[1], 1 - margin[1])]
    places = to_axes.transform(list(points)).tolist()
    x, y = to_axes.inverted().transform(
        max(corners, key=lambda corner: min(math.dist(corner, place) for place in places))
    )
    return float(x), float(y)


def _box_around(first: Place, second: Place) -> Bbox:
    from matplotlib.transforms import Bbox

    (x0, x1), (y0, y1) = sorted((first[0], second[0])), sorted((first[1], second[1]))
    return Bbox.from_extents(x0 - CLEARANCE, y0 - CLEARANCE, x1 + CLEARANCE, y1 + CLEARANCE)


def _covered(box: Bbox, taken: Sequence[Bbox], frame: BboxBase) -> float:
    """How much of what is taken `box` hides, in pixels; leaving the frame counts as well."""
    inside = _overlap(box, frame)
    return sum(_overlap(box, other) for other in taken) + box.width * box.height - inside


def _overlap(first: BboxBase, second: BboxBase) -> float:
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return max(width, 0.0) * max(height, 0.0)
