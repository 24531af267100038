"""How figures look, on paper and on the page: a colour per method, a mark per setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
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
# which is too light for thin lines. Then Tol's muted scheme.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MUTED = ("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#999933", "#44AA99", "#AA4499")
COLOURS = (*OKABE_ITO, *MUTED)
METHODS = {
    name: (colour, marker)
    for name, colour, marker in zip(
        ("ties", "dare_ties", "task_arithmetic", "dare_linear", "linear", "widen", "checkpoint"),
        (*OKABE_ITO, "#882255"),
        "os^vDPX",
        strict=True,
    )
}
"""Which stay what they are in every figure; others take what is free."""
MARKERS = "os^vDPX<>ph8d*"
"""matplotlib's, one for each method; they tell methods apart in print without colour."""
MEMBER = "D"
"""Base and experts, in ink."""
HOLLOW: dict[str, Any] = {"fillstyle": "full", "markerfacecolor": "white"}
"""A plain merge, as matplotlib calls it."""

# For the settings of methods, which share their method's colour. Hollow is a plain merge.
Fill = Literal["full", "left", "bottom"]
SHAPES = "o^sdX*"
FILLS: tuple[Fill, ...] = ("full", "left", "bottom")
DASHES: tuple[tuple[float, ...], ...] = (
    (), (6, 2), (1.5, 1.5), (6, 1.5, 1.5, 1.5), (10, 2), (6, 1.5, 1.5, 1.5, 1.5, 1.5),
)  # fmt: skip
"""Strokes and gaps, in points; none is a whole line."""

Name = tuple[str, str]
"""A method and its setting; the setting is empty where nothing varies."""


@dataclass(frozen=True)
class Look:
    """How a series is drawn."""

    colour: str
    marker: str
    fill: Fill = "full"
    dash: tuple[float, ...] = ()

    @property
    def point(self) -> dict[str, Any]:
        return {
            "color": self.colour,
            "marker": self.marker,
            "fillstyle": self.fill,
            "markerfacecoloralt": "white",
        }

    @property
    def line(self) -> dict[str, Any]:
        return {"color": self.colour, "linestyle": (0, self.dash) if self.dash else "-"}


def looks(names: Iterable[Name]) -> dict[Name, Look]:
    """A look for each series: no two are alike, up to 18 settings of 14 methods.

    Colour is the method. The marker is the setting's, or the method's own where none varies.
    """
    order = list(dict.fromkeys(names))
    colours = method_colours(dict.fromkeys(method for method, _ in order if method))
    settings = list(dict.fromkeys(setting for _, setting in order if setting))
    marks = list(product(FILLS, SHAPES))
    styles = {}
    for method, setting in order:
        colour, own = colours[method] if method else (INK, "o")
        if setting:
            number = settings.index(setting)
            fill, marker = marks[number % len(marks)]
            styles[method, setting] = Look(colour, marker, fill, DASHES[number % len(DASHES)])
        else:
            styles[method, setting] = Look(colour, own)
    return styles


def method_colours(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """By method, its colour and marker; `authors/ties` has the colour of `ties`."""
    styles = {name: METHODS.get(name) for name in methods}
    taken = set(filter(None, styles.values()))
    every = [(colour, marker) for marker, colour in product(MARKERS, COLOURS)]
    chosen = {}
    for name, style in styles.items():
        chosen[name] = style or _free(name, taken, every)
        taken.add(chosen[name])
    return chosen


def _free(name: str, taken: set[tuple[str, str]], every: Sequence[tuple[str, str]]) -> tuple:
    """What the name alone decides, unless another method of the figure has it."""
    known = METHODS.get(name.rpartition("/")[2])
    start = every.index(known) if known else crc32(name.encode()) % len(every)
    colours = {colour for colour, _ in taken}

    def cost(style: tuple[str, str]) -> tuple[bool, bool]:
        return style in taken or style == known, (
            style[0] != known[0] if known else style[0] in colours
        )

    return min((*every[start:], *every[:start]), key=cost)


def legend(styles: Mapping[Name, Look]) -> Iterator[tuple[str, Look, bool]]:
    """Name, look, and whether only its colour counts: methods, then settings in grey."""
    for method in dict.fromkeys(method for method, _ in styles if method):
        own = styles.get((method, ""))
        first = next(look for (name, _), look in styles.items() if name == method)
        yield method, own or first, own is None
    settings = {setting: look for (_, setting), look in styles.items() if setting}
    for setting, look in settings.items():
        yield setting, replace(look, colour=GREY), False


def outline(marker: str, fill: Fill = "full") -> tuple[list[list[Any]], list[list[Any]] | None]:
    """matplotlib's marker as path commands, in a square of side 2: its edge, and the filled part.

    `["M", x, y]`, `["L", ..]`, `["Q", ..]`, `["C", ..]`, `["Z"]`, y down as in SVG. The filled
    part is None where it is the whole.
    """
    from matplotlib.markers import MarkerStyle

    style = MarkerStyle(marker, fillstyle="full")
    edge = _commands(style)
    return edge, None if fill == "full" else _commands(MarkerStyle(marker, fillstyle=fill))


def _commands(style: Any) -> list[list[Any]]:
    path = style.get_path().transformed(style.get_transform())
    letters = {path.MOVETO: "M", path.LINETO: "L", path.CURVE3: "Q", path.CURVE4: "C"}
    commands: list[list[Any]] = []
    for vertices, code in path.iter_segments():
        if code == path.CLOSEPOLY:
            commands.append(["Z"])
        else:
            signs = [1 if i % 2 == 0 else -1 for i in range(len(vertices))]
            places = [round(float(2 * s * v), 3) for s, v in zip(signs, vertices, strict=True)]
            commands.append([letters[code], *places])
    return commands
