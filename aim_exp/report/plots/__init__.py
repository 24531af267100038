"""Figures: a file for each, with its data and its drawing; `html/` draws the same on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aim_exp.errors import AimError
from aim_exp.report.paper import AS_IT_IS, Paper
from aim_exp.report.plots.against import draw_sweep
from aim_exp.report.plots.canvas import DRAWS, PANELS, save
from aim_exp.report.plots.dose import Profile, draw_dose, draw_layers, has_layers, profiles
from aim_exp.report.plots.front import Pair, Plane, draw_planes, front
from aim_exp.report.plots.saliency import SaliencySpread, draw_saliency, saliency_spread
from aim_exp.report.plots.series import OMEGA, Sweep, sweep, swept_keys
from aim_exp.report.rows import AVERAGE, ERROR, GAIN, Report, margin_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "figures"
FRONT = "pareto_front"
SALIENCY, DOSE, LAYERS = "saliency", "delta_kept", "delta_kept_by_layer"
Paint = Callable[["Figure"], None]


@dataclass(frozen=True)
class Charts:
    """What the figures of a report show, computed once: for paper and page alike."""

    report: Report
    planes: tuple[Plane, ...]
    sweeps: Mapping[str, Sweep]
    """By full key: omega, `x`, and every other setting against which there is anything to draw."""
    x: str
    """The setting that scores are shown against, first on the page."""
    profiles: tuple[Profile, ...]
    saliency: SaliencySpread | None

    @property
    def swept(self) -> Sweep:
        return self.sweeps[self.x]


def make_charts(report: Report, axes: Pair | None = None, x: str = OMEGA) -> Charts:
    """`axes`: the two benchmarks of the front; `x`: the full key of a swept setting.

    AimError if there is no such benchmark or setting.
    """
    if x not in (*report.varying, OMEGA):
        raise AimError(f"--x {x}: varies in no run here; there are: {', '.join(report.varying)}")
    every = {key: sweep(report, key) for key in dict.fromkeys([OMEGA, *swept_keys(report), x])}
    return Charts(
        report=report,
        planes=front(report, every[OMEGA].series, axes),
        sweeps={k: each for k, each in every.items() if k in (OMEGA, x) or each.is_worth_drawing},
        x=x,
        profiles=tuple(profiles(report)),
        saliency=saliency_spread(report),
    )


def figures(charts: Charts) -> dict[str, tuple[str, Paint]]:
    """By file name, the caption, and what draws it: of those that there is anything for."""
    said, shown = captions(charts), {}
    if charts.planes:
        caption = f"{said['front']} What stands above it is the median of all points."
        shown[FRONT] = caption, partial(draw_planes, planes=charts.planes)
    if charts.swept.is_worth_drawing:
        title = charts.swept.axis.title
        rows = [row for each in charts.swept.series for row in each.path]
        what = {
            AVERAGE: ("average", "Average score"),
            GAIN: ("gain", "Hypervolume gain over base and the experts"),
        }
        for quantity, (name, words) in what.items():
            if any(quantity in row.estimates for row in rows):
                paint = partial(draw_sweep, sweep=charts.swept, quantity=quantity)
                caption = f"{words} against {title}. {said['sweep']}"
                shown[f"{title.replace('.', '_')}_{name}"] = caption, paint
    if charts.saliency is not None:
        shown[SALIENCY] = said["saliency"], partial(draw_saliency, shown=charts.saliency)
    if charts.profiles:
        shown[DOSE] = said["dose"], partial(draw_dose, shown=charts.profiles)
    if has_layers(charts.profiles):
        shown[LAYERS] = said["layers"], partial(draw_layers, shown=charts.profiles)
    return shown


def draw(charts: Charts, directory: Path, paper: Paper = AS_IT_IS, *, vector: bool = True) -> None:
    """All figures into `directory/figures`, as PNG and, unless `vector` is false, as PDF."""
    for name, (_, paint) in figures(charts).items():
        save(name, paint, directory / FOLDER, vector=vector, paper=paper)


def draw_front(report: Report, directory: Path, *, vector: bool = True) -> Path | None:
    """The front alone, as PNG and, unless `vector` is false, as PDF.

    None if nothing was scored on two benchmarks.
    """
    planes = front(report, sweep(report).series)
    paint = partial(draw_planes, planes=planes)
    return save(FRONT, paint, directory / FOLDER, vector=vector) if planes else None


def captions(charts: Charts) -> dict[str, str]:
    """What is said below a figure, on paper and on the page."""
    report, count = charts.report, len(charts.report.groups)
    plain = any(not row.relaxed for row in report.merges)
    start = "from a plain merge (hollow) through its" if plain else "through the"
    dots = f"{DRAWS.capitalize()}, around the mean." * any(
        row.n > 1 for group in report.groups for row in group.rows
    )
    bars = margin_words(report.groups)
    few = f" (the first {PANELS} of {count})" * (count > PANELS)
    panels = f"In a PDF, a panel for each of what is scored apart{few}." * (count > 1)
    sentences = {
        "front": (
            "The line is the front; what it dominates is faded.",
            f"Thin lines lead {start} relaxed merges (filled), from weak to strong relaxation."
            * any(row.relaxed for row in report.merges),
            dots,
            panels,
        ),
        "sweep": (
            f"Bars: ±1 {bars}." * bool(bars),
            "Those of a gain are by a parametric bootstrap of all scores." * (ERROR in bars),
            "Dashed and hollow: plain merges." * plain,
            "Dotted: relaxed merges that omega plays no part in."
            * any(row.relaxed and row.omega is None for row in report.merges),
            dots,
            panels,
        ),
        "dose": (
            "How much of the merge's difference to base the relaxation kept (norm after over "
            "before), by kind of module. Grey: the mean of r, what would be kept of a difference "
            "that lies on all channels alike.",
            "Markers: means over a method's settings; bars: their range."
            * any(profile.ranges for profile in charts.profiles),
        ),
        "layers": (
            "The same by layer (embeddings, heads and final norms are in none), the value of omega "
            "at the end of a line.",
        ),
        "saliency": (
            "The saliency s of base's input channels, by what reads them. Above: channels in "
            "falling order, mean over layers. Below: the mean over channels, by layer. AIM keeps "
            "r = 1 - (1 - omega) s / max s of a channel's delta.",
        ),
    }
    return {name: " ".join(filter(None, parts)) for name, parts in sentences.items()}
