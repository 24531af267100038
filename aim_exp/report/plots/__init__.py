"""Figures: a file for each, with its data and its drawing; `html/` draws the same on the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aim_exp.errors import AimError
from aim_exp.report.paper import AS_IT_IS, Paper
from aim_exp.report.plots.against import draw_sweep
from aim_exp.report.plots.canvas import DRAWS, ERROR, PANELS, save
from aim_exp.report.plots.dose import draw_dose, profiles
from aim_exp.report.plots.front import Pair, draw_planes, front
from aim_exp.report.plots.saliency import draw_saliency, saliency_spread
from aim_exp.report.plots.series import OMEGA, sweep
from aim_exp.report.rows import AVERAGE, GAIN, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "figures"
FRONT = "pareto_front"
SALIENCY, DOSE = "saliency", "delta_kept"


def figures(
    report: Report, axes: Pair | None = None, x: str = OMEGA
) -> dict[str, tuple[str, Callable[[Figure], None]]]:
    """By file name, the caption, and what draws it: of those that `report` has anything for.

    `axes`: the two benchmarks of the front; `x`: the full key of a swept setting. AimError if
    there is no such benchmark or setting.
    """
    if x not in (*report.varying, OMEGA):
        raise AimError(f"--x {x}: varies in no run here; there are: {', '.join(report.varying)}")
    shown: dict[str, tuple[str, Callable[[Figure], None]]] = {}
    planes, swept = front(report, axes), sweep(report, x)
    if planes:
        shown[FRONT] = front_caption(report), lambda figure: draw_planes(figure, planes)
    if swept.is_worth_drawing:
        rows = [row for each in swept.series for row in each.path]
        title = swept.axis.title
        for quantity, name in ((AVERAGE, "average"), (GAIN, "gain")):
            if any(quantity in row.estimates for row in rows):
                shown[f"{title.replace('.', '_')}_{name}"] = (
                    sweep_caption(report, title, quantity),
                    lambda figure, quantity=quantity: draw_sweep(figure, swept, quantity),
                )
    spread, kept = saliency_spread(report), profiles(report)
    if spread is not None:
        shown[SALIENCY] = SALIENCY_CAPTION, lambda figure: draw_saliency(figure, spread)
    if kept:
        ranges = any(profile.ranges for profile in kept)
        shown[DOSE] = _words(DOSE_CAPTION, RANGES * ranges), lambda figure: draw_dose(figure, kept)
    return shown


def draw(
    report: Report,
    directory: Path,
    axes: Pair | None = None,
    x: str = OMEGA,
    paper: Paper = AS_IT_IS,
) -> dict[str, str]:
    """Draw all figures into `directory/figures`, as PNG and PDF; returns captions by name."""
    shown = figures(report, axes, x)
    for name, (_, paint) in shown.items():
        save(name, paint, directory / FOLDER, paper=paper)
    return {name: caption for name, (caption, _) in shown.items()}


def draw_front(report: Report, directory: Path, *, vector: bool = True) -> Path | None:
    """The front alone, as PNG and, unless `vector` is false, as PDF.

    None if nothing was scored on two benchmarks.
    """
    planes = front(report)

    def paint(figure: Figure) -> None:
        draw_planes(figure, planes)

    return save(FRONT, paint, directory / FOLDER, vector=vector) if planes else None


def captions(report: Report, axes: Pair | None = None, x: str = OMEGA) -> dict[str, str]:
    """By file name, what the report says below each figure that there is."""
    return {name: caption for name, (caption, _) in figures(report, axes, x).items()}


def page_captions(report: Report) -> dict[str, str]:
    """By the figures of the page."""
    plain = any(not row.relaxed for row in report.merges)
    return {
        "front": _words(
            "Percent. Dominated models are faded; the front is that of all models, whatever is "
            "filtered.",
            path_words(report),
            f"Bars, on the front: {ERROR}.",
            _dots(report),
        ),
        "sweep": _words(
            "Dashed and hollow: plain merges." * plain,
            without_omega(report),
            f"Bars: {ERROR}; of a gain, by a parametric bootstrap of all scores.",
            _dots(report),
        ),
        "profiles": "Parallel coordinates: a line per model. Names stand where base or an expert "
        "stands out most.",
        "dose": _words(DOSE_CAPTION, RANGES * any(each.ranges for each in profiles(report))),
        "saliency": SALIENCY_CAPTION,
    }


SALIENCY_CAPTION = (
    "The saliency s of base's input channels, by what reads them. Above: channels in falling "
    "order, mean over layers. Below: the mean over channels, by layer. AIM keeps r = 1 - (1 - "
    "omega) s / max s of a channel's delta."
)
DOSE_CAPTION = (
    "How much of the merge's difference to base the relaxation kept (norm after over before), by "
    "kind of module. Grey: the mean of r, what would be kept of a difference that lies on all "
    "channels alike."
)
RANGES = "Markers: means over a method's settings; bars: their range."
FRONT_CAPTION = (
    "Two benchmarks in conflict. The line is the front; what it dominates is faded. The standard "
    "errors are the median of all points."
)


def path_words(report: Report) -> str:
    """What the thin lines of the front lead through; empty where there are none."""
    if not any(row.relaxed for row in report.merges):
        return ""
    plain = any(not row.relaxed for row in report.merges)
    start = "from a plain merge (hollow) " if plain else ""
    return (
        f"Thin lines lead {start}through {'its' if plain else 'the'} relaxed merges (filled), from "
        "weak to strong relaxation."
    )


def without_omega(report: Report) -> str:
    """What the dotted lines against omega are; empty where there are none."""
    dotted = any(row.relaxed and row.omega is None for row in report.merges)
    return "Dotted: relaxed merges that omega plays no part in." * dotted


def front_caption(report: Report) -> str:
    """Below the figure, in sentences."""
    return _words(FRONT_CAPTION, path_words(report), _dots(report), _panels(report))


def sweep_caption(report: Report, title: str, quantity: str) -> str:
    """Below the figure, in sentences."""
    what = "Average score" if quantity == AVERAGE else "Hypervolume gain over base and the experts"
    how = "by a parametric bootstrap of all scores" if quantity == GAIN else "over benchmark items"
    plain = any(not row.relaxed for row in report.merges)
    return _words(
        f"{what} against {title}. Bars: one standard error, {how}.",
        "Hollow, and dashed: plain merges." * plain,
        without_omega(report) * (title == OMEGA),
        _dots(report),
        _panels(report),
    )


def _dots(report: Report) -> str:
    """What the small dots are, where seeds repeat."""
    many = any(row.n > 1 for group in report.groups for row in group.rows)
    return f"{DRAWS[0].upper()}{DRAWS[1:]}, around the mean." * many


def _panels(report: Report) -> str:
    """What the panels are, where there are several groups."""
    count = len(report.groups)
    few = f" (the first {PANELS} of {count})" if count > PANELS else ""
    return f"A panel for each of what is scored apart{few}." * (count > 1)


def _words(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
