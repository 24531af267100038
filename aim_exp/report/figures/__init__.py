"""The figures, drawn with matplotlib as PNG and PDF: one column of a paper wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from aim_exp.report.figures.canvas import (
    DRAWS,
    ERROR,
    PANELS,
    PLAIN,
    Line,
    colours_and_marks,
    hollow_in_legend,
    legend_below,
    panels,
    save,
)
from aim_exp.report.figures.front import draw_planes
from aim_exp.report.figures.relaxation import draw_kept, draw_saliency
from aim_exp.report.figures.style import Mark
from aim_exp.report.plots import Axes, OmegaAxis, Series, front, omega_axis, series
from aim_exp.report.relaxation import profiles, saliency_spread
from aim_exp.report.repeats import AVERAGE, GAIN, Repeats, Spread
from aim_exp.report.results import Results
from aim_exp.report.studies import seeds_repeat
from aim_exp.report.summary import DOTS, path_words, plain_words, study_name, study_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

FOLDER = "figures"
FRONT = "pareto_front"
CAPTIONS = {
    FRONT: "Two benchmarks in conflict. The line is the front; what it dominates is faded. "
    "The standard errors are the median of all points.",
    "omega_average": "Average score against omega. Bars: one standard error over the benchmark "
    "items.",
    "omega_gain": "Hypervolume gain over base and the merged experts against omega, drawn like the "
    "average. Bars: one standard error, by a parametric bootstrap of all scores.",
    "saliency": "The saliency s of base's input channels, by what reads them. Above: channels in "
    "falling order, mean over layers. Below: the mean over channels, by layer. AIM keeps r = 1 - "
    "(1 - omega) s / max s of a channel's delta.",
    "delta_kept": "How much of the merge's difference to base AIM kept (norm after over before), "
    "by kind of module. Grey: the mean of r, what would be kept of a difference that lies on all "
    "channels alike.",
}
"""By file name, what the report says below a figure whatever the runs are."""
RANGES = "Markers: means over a method's settings; bars: their range."
Painter = Callable[["Figure"], None]
UNITS = {AVERAGE: ("average score (%)", 100.0), GAIN: ("hypervolume gain", 1.0)}
"""An axis's text, and the factor of what it shows."""
BARS = {"markersize": 4, "elinewidth": 0.7, "capsize": 1.5}


def draw(results: Results, directory: Path, axes: Axes | None = None) -> list[Path]:
    """Draw what there is to draw into `directory/figures`; returns the PNG files."""
    painters = {**_front(results, axes), **_omega(results), **_relaxation(results)}
    return [save(name, paint, directory / FOLDER) for name, paint in painters.items()]


def captions(results: Results) -> dict[str, str]:
    """By file name, what the report says below a figure: only of what these runs have."""
    dots = DOTS if seeds_repeat(results) else ""
    apart = _panel_words(results)
    more = {
        FRONT: [path_words(results), dots, apart],
        "omega_average": [plain_words(results), dots, apart],
        "delta_kept": [RANGES] if any(profile.ranges for profile in profiles(results)) else [],
    }
    return {
        name: " ".join(filter(None, [text, *more.get(name, [])])) for name, text in CAPTIONS.items()
    }


def _panel_words(results: Results) -> str:
    """What the panels are, where there are several studies."""
    told = [f"{number}: {words}" for number, words in study_words(results).items()]
    if not told:
        return ""
    few = f" (the first {PANELS} of {len(told)})" if len(told) > PANELS else ""
    return f"A panel for each of what is scored apart{few}: {', '.join(told[:PANELS])}."


def draw_front(results: Results, directory: Path, *, vector: bool = True) -> Path | None:
    """Draw only the front; None if nothing was scored on two benchmarks."""
    painters = _front(results, None)
    if not painters:
        return None
    return save(FRONT, painters[FRONT], directory / FOLDER, vector=vector)


def _front(results: Results, axes: Axes | None) -> dict[str, Painter]:
    plane = front(results, axes)
    return {} if plane is None else {FRONT: lambda figure: draw_planes(figure, plane)}


def _omega(results: Results) -> dict[str, Painter]:
    drawn = series(results)
    if all(len(each.runs) + (each.null is not None) < 2 for each in drawn):
        return {}
    painters: dict[str, Painter] = {
        "omega_average": lambda figure: _draw_series(figure, drawn, AVERAGE)
    }
    if any(run.spread(GAIN) for each in drawn for run in each.runs):
        painters["omega_gain"] = lambda figure: _draw_series(figure, drawn, GAIN)
    return painters


def _relaxation(results: Results) -> dict[str, Painter]:
    painters: dict[str, Painter] = {}
    spread, kept = saliency_spread(results), profiles(results)
    if spread is not None:
        painters["saliency"] = lambda figure: draw_saliency(figure, spread)
    if kept:
        painters["delta_kept"] = lambda figure: draw_kept(figure, kept)
    return painters


def _draw_series(figure: Figure, drawn: Sequence[Series], quantity: str) -> None:
    """A panel for each study, of the first few."""
    known = [each for each in drawn if _known((*each.runs, each.null), quantity)]
    groups = [list(group) for _, group in groupby(known, key=lambda each: each.study.number)]
    groups = groups[:PANELS]
    shown = [each for group in groups for each in group]
    plots = panels(figure, [study_name(group[0].study) for group in groups])
    lines = [(each.method, each.setting) for each in shown]
    axis = omega_axis(shown)
    styles = colours_and_marks(plots[0], lines, joined=len(axis.places) > 1)
    if any(_known([each.null], quantity) for each in shown):
        hollow_in_legend(plots[0], line="--")
    for plot, group in zip(plots, groups, strict=True):
        plot.set(xlabel="omega", ylabel=UNITS[quantity][0], xlim=axis.limits)
        plot.set_xticks(list(axis.ticks), list(axis.ticks.values()))
        _draw_study(plot, axis, group, quantity, styles)
    legend_below(figure, last=[PLAIN], title=_bars_and_dots(shown, quantity))


def _bars_and_dots(drawn: Sequence[Series], quantity: str) -> str:
    """What they are, where there are any."""
    known = [pair for each in drawn for pair in _known((*each.runs, each.null), quantity)]
    bars = any(spread.stderr is not None for _, spread in known)
    dots = any(spread.n > 1 for _, spread in known)
    return "; ".join([f"bars: {ERROR}"] * bars + [DRAWS] * dots)


def _draw_study(
    plot: Plot, axis: OmegaAxis, drawn: Sequence[Series], quantity: str,
    styles: Mapping[Line, tuple[str, Mark]],
) -> None:  # fmt: skip
    nulls = [None, *(each.null for each in drawn)]
    for number, each in enumerate(drawn):
        shift = axis.shift(number, len(drawn))
        colour, mark = styles[each.method, each.setting]
        _draw_runs(plot, axis, each.runs, shift, quantity, colour, mark)
        if each.null is not nulls[number]:  # settings of AIM share one, and follow one another
            _draw_null(plot, axis.null + shift, each.null, quantity, colour, mark)


def _draw_runs(
    plot: Plot, axis: OmegaAxis, runs: Sequence[Repeats], shift: float, quantity: str,
    colour: str, mark: Mark,
) -> None:  # fmt: skip
    """Joined by a line, with error bars."""
    known = _known(runs, quantity)
    if not known:
        return
    xs = [axis.places[run.first.record.omega or 0.0] + shift for run, _ in known]
    spreads = [spread for _, spread in known]
    plot.errorbar(
        xs, [_mean(s, quantity) for s in spreads], _bars(spreads, quantity), linestyle=mark.dash,
        color=colour, **BARS, **mark.style,
    )  # fmt: skip
    for x, (run, _) in zip(xs, known, strict=True):
        _draw_seeds(plot, x, run, quantity, colour)


def _draw_null(
    plot: Plot, x: float, null: Repeats | None, quantity: str, colour: str, mark: Mark
) -> None:
    """A plain merge: hollow, with a bar, and dashed through the whole plot."""
    for run, spread in _known([null], quantity):
        mean = _mean(spread, quantity)
        plot.axhline(mean, color=colour, linestyle="--", linewidth=0.8, alpha=0.8)
        plot.errorbar(
            x, mean, _bars([spread], quantity), linestyle="", color=colour, marker=mark.marker,
            markerfacecolor="white", **BARS,
        )  # fmt: skip
        _draw_seeds(plot, x, run, quantity, colour)


def _known(runs: Sequence[Repeats | None], quantity: str) -> list[tuple[Repeats, Spread]]:
    """Those that have the quantity."""
    found = [(run, run.spread(quantity)) for run in runs if run]
    return [(run, spread) for run, spread in found if spread]


def _draw_seeds(plot: Plot, x: float, run: Repeats, quantity: str, colour: str) -> None:
    values = [UNITS[quantity][1] * value for value in run.values(quantity)]
    if len(values) > 1:
        plot.plot([x] * len(values), values, ".", color=colour, alpha=0.45, markersize=3, zorder=1)


def _mean(spread: Spread, quantity: str) -> float:
    return UNITS[quantity][1] * spread.mean


def _bars(spreads: Sequence[Spread], quantity: str) -> list[float] | None:
    errors = [spread.stderr for spread in spreads if spread.stderr is not None]
    return [UNITS[quantity][1] * error for error in errors] if len(errors) == len(spreads) else None
