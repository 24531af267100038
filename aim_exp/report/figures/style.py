"""How the figures look: sizes for one column of a paper, and one colour per method everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

WIDTH, HEIGHT = 3.3, 2.9
"""Inches; a column of most two-column styles, so that no text is printed below 7 points."""

RC = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # TrueType: what journals ask for, and text that can be searched
}

INK = "#333333"
GREY = "#888888"
"""In a legend, for what is the same in every colour."""

# Okabe and Ito's palette, told apart with any common colour blindness; without its yellow,
# which is too light for thin lines. The markers tell methods apart in print without colour.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
)  # fmt: skip
WINE = "#882255"
"""Tol's, for weights that are merged elsewhere."""
METHODS = {
    "ties": (BLUE, "o"),
    "dare_ties": (VERMILION, "s"),
    "task_arithmetic": (GREEN, "^"),
    "dare_linear": (PURPLE, "v"),
    "linear": (ORANGE, "D"),
    "widen": (SKY, "P"),
    "checkpoint": (WINE, "X"),
}
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
LINE_STYLES = ("-", "-.", ":")
"""For several lines of one colour."""
INPUTS = (
    "#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#999933", "#44AA99", "#AA4499",
)  # fmt: skip
"""For what is no method: Tol's muted scheme, told apart with any common colour blindness."""
OTHER_MARKERS = ("<", ">", "p", "h", "8", "d", "*")

# For the settings of methods, which share their method's colour. Hollow is a plain merge.
SHAPES = ("o", "^", "s", "d", "X", "*")
FILLS: tuple[Literal["full", "left"], ...] = ("full", "left")
DASHES = ("-", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class Mark:
    """What tells lines and points of one colour apart."""

    marker: str
    fill: Literal["full", "left"] = "full"
    dash: str | tuple[int, tuple[float, ...]] = "-"

    @property
    def style(self) -> dict[str, Any]:
        """Of a point, as matplotlib calls it."""
        return {"marker": self.marker, "fillstyle": self.fill, "markerfacecoloralt": "white"}


def method_style(method: str) -> tuple[str, str]:
    """A method's colour and marker: the same in every figure, whatever else is in it.

    Other settings of a method (`authors/ties`) have its colour, and a marker of their own.
    """
    if method in METHODS:
        return METHODS[method]
    known = method.rpartition("/")[2]
    if known in METHODS:
        return METHODS[known][0], OTHER_MARKERS[list(METHODS).index(known)]
    number = crc32(method.encode())
    return COLOURS[number % len(COLOURS)], OTHER_MARKERS[number % len(OTHER_MARKERS)]


def setting_marks(settings: Iterable[str]) -> dict[str, Mark]:
    """A mark for each setting, in their order; none for "", where nothing varies."""
    names = [name for name in dict.fromkeys(settings) if name]
    return {
        name: Mark(
            SHAPES[number % len(SHAPES)],
            FILLS[number // len(SHAPES) % len(FILLS)],
            DASHES[number % len(DASHES)],
        )
        for number, name in enumerate(names)
    }
