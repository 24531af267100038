"""Figures of a frame, as Matplotlib objects: those of a report on the runs that are in it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aim_exp.errors import AimError, did_you_mean
from aim_exp.report.baselines import parse_names
from aim_exp.report.frames import DIRECTORIES
from aim_exp.report.load import load
from aim_exp.report.plots import Paint, make_charts
from aim_exp.report.plots.against import draw_sweep
from aim_exp.report.plots.canvas import painted
from aim_exp.report.plots.dose import draw_dose, draw_layers, has_layers
from aim_exp.report.plots.front import draw_planes
from aim_exp.report.plots.saliency import draw_saliency
from aim_exp.report.rows import AVERAGE, GAIN, Report, make_report

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plot_front(scores: pd.DataFrame, axes: tuple[str, str] | None = None) -> Figure:
    """The Pareto front of two benchmarks, by default those in sharpest conflict."""
    planes = make_charts(_report(scores), axes).planes
    return _figure(partial(draw_planes, planes=planes), "two benchmarks", is_there=bool(planes))


def plot_sweep(scores: pd.DataFrame, x: str = "omega", quantity: str = AVERAGE) -> Figure:
    """`quantity` (`average`, `hypervolume gain`, a benchmark) against the setting `x`."""
    report = _report(scores)
    if quantity not in (known := (AVERAGE, GAIN, *report.benchmarks)):
        hint = did_you_mean(quantity, known)
        raise AimError(f"quantity={quantity}: there is none{hint}; there are: {', '.join(known)}")
    (key,) = parse_names(report, "x", [x])
    swept = make_charts(report, x=key).swept
    paint = partial(draw_sweep, sweep=swept, quantity=quantity)
    return _figure(paint, f"two values of {x}", is_there=swept.is_worth_drawing)


def plot_dose(scores: pd.DataFrame, *, by_layer: bool = False) -> Figure:
    """How much of the merge's change the relaxation left, by kind of module or by layer."""
    profiles = make_charts(_report(scores)).profiles
    is_there = has_layers(profiles) if by_layer else bool(profiles)
    draw = draw_layers if by_layer else draw_dose
    return _figure(partial(draw, shown=profiles), "what a relaxation left", is_there=is_there)


def plot_saliency(scores: pd.DataFrame) -> Figure:
    """How base's saliency is spread over channels and layers."""
    shown = make_charts(_report(scores)).saliency
    if shown is None:
        raise AimError("nothing to draw: these runs have no saliency")
    return painted(partial(draw_saliency, shown=shown))


def _figure(paint: Paint, what: str, *, is_there: bool) -> Figure:
    if not is_there:
        raise AimError(f"nothing to draw: these runs have not {what}")
    return painted(paint)


def _report(scores: pd.DataFrame) -> Report:
    """Of the runs that have a line in the frame."""
    if not (directories := scores.attrs.get(DIRECTORIES)):
        raise AimError(
            "no frame of aim_exp.results or aim_exp.items: what is drawn are its runs, filtered or "
            "not; one put together anew does not say where they are"
        )
    runs = load(*map(Path, directories))
    kept = set(zip(scores["sweep"], scores["job"], strict=True))
    jobs = (job for job in runs.jobs if (job.sweep, job.name) in kept)
    return make_report(replace(runs, jobs=tuple(jobs)))
