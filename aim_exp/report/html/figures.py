"""What the page's figures show, as plain data: the script chooses from it and draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from statistics import fmean
from typing import Any

from aim_exp.aim.settings import SCALINGS
from aim_exp.report.figures.style import method_style
from aim_exp.report.html.tables import anchor, filtered
from aim_exp.report.models import Model, Role
from aim_exp.report.plots import Axes, front, omega_axis, pair_fronts, study_series
from aim_exp.report.repeats import AVERAGE, GAIN, Drawn, Member, Repeats
from aim_exp.report.results import Job, Results
from aim_exp.report.studies import Study, studies
from aim_exp.report.summary import study_name

SHAPES = {
    "o": ("circle", "M7,0A7,7 0 1 1 -7,0A7,7 0 1 1 7,0Z"),
    "s": ("square", "M-6,-6H6V6H-6Z"),
    "^": ("triangle-up", "M0,-7L7,6H-7Z"),
    "v": ("triangle-down", "M0,7L7,-6H-7Z"),
    "<": ("triangle-left", "M-7,0L6,-7V7Z"),
    ">": ("triangle-right", "M7,0L-6,-7V7Z"),
    "D": ("diamond", "M0,-8L8,0L0,8L-8,0Z"),
    "d": ("diamond-tall", "M0,-8L5,0L0,8L-5,0Z"),
    "P": ("cross", "M-2.5,-7H2.5V-2.5H7V2.5H2.5V7H-2.5V2.5H-7V-2.5H-2.5Z"),
    "X": ("x", "M-7,-4L-4,-7L0,-3L4,-7L7,-4L3,0L7,4L4,7L0,3L-4,7L-7,4L-3,0Z"),
    "p": ("pentagon", "M0,-7.5L7.1,-2.3L4.4,6.1H-4.4L-7.1,-2.3Z"),
    "h": ("hexagon", "M0,-7.5L6.5,-3.8V3.8L0,7.5L-6.5,3.8V-3.8Z"),
    "8": ("octagon", "M3,-7L7,-3V3L3,7H-3L-7,3V-3L-3,-7Z"),
    "*": ("star", "M0,-8L2,-2.6H7.6L3,1L4.7,6.5L0,3.2L-4.7,6.5L-3,1L-7.6,-2.6H-2Z"),
}
"""matplotlib's markers as plotly names them, and as SVG paths in a box of 20 by 20."""
DOT = "M-0.8,0H0.8"
CONTROLS = frozenset(SCALINGS) - {"identity"}
"""Scalings that lose what AIM is about: their runs are hollow, with a dot."""
MEMBER_SHAPE = "D"
DASHES = ("solid", "dashdot", "dot", "longdashdot")
"""For several curves of one method, which share its colour."""
MARGIN = 0.08
"""Free space around the points, as a part of their range."""


@dataclass(frozen=True)
class Mark:
    """How a model or a curve is drawn, in the figures and in a legend; no colour: ink."""

    name: str
    colour: str | None
    symbol: str
    path: str
    dash: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class Place:
    """A model; `values` and `errors` go by `FigureData.quantities`, in their units.

    Of a model that was drawn with several seeds they are the means, and `draws` are those.
    """

    label: str
    """As plotly shows it: it would take `<b>` in a name for markup."""
    role: Role
    study: int
    """From 0."""
    values: tuple[float | None, ...]
    errors: tuple[float | None, ...]
    draws: tuple[tuple[float, ...], ...]
    """By quantity, in its unit; empty where there is one."""
    mark: Mark
    filtered: Mapping[str, str] = field(default_factory=dict)
    """What it is filtered by: nothing for base and experts, which stay."""
    plain: bool = False
    run: str | None = None
    """The id of its run's section."""
    peak: int | None = None
    """Of base and experts: the benchmark on which it stands out most."""


@dataclass(frozen=True)
class DrawnCurve:
    """A curve against omega; `runs` (in the order of omega) and `null` are positions of models."""

    study: int
    mark: Mark
    filtered: Mapping[str, str]
    """What its runs have in common of what they are filtered by."""
    runs: tuple[int, ...]
    places: tuple[float, ...]
    """Along the axis; moved a little, or error bars would hide one another."""
    null: int | None
    null_place: float


@dataclass(frozen=True)
class DrawnAxis:
    """What an axis shows, and the texts along it."""

    limits: tuple[float, float]
    ticks: tuple[float, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class FigureData:
    """All figures; models are named by their position, benchmarks by theirs."""

    benchmarks: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    """Per benchmark, what an axis must show, in percent."""
    quantities: tuple[str, ...]
    """average, hypervolume gain, then the benchmarks; percent, but for the gain."""
    models: tuple[Place, ...]
    studies: tuple[str, ...]
    """What tells them apart, where there are several."""
    fronts: tuple[dict[str, tuple[int, ...]], ...]
    """Per study, by `i,j` (benchmarks, i < j): the models on the front, left to right."""
    axes: tuple[int, int] | None
    """The benchmarks of the front that is shown first; None where there are less than two."""
    curves: tuple[DrawnCurve, ...]
    omega_axes: tuple[DrawnAxis, ...]
    """Per study."""


QUANTITIES = (AVERAGE, GAIN)


def figure_data(results: Results, axes: Axes | None = None) -> FigureData | None:
    """What the figures show; None where nothing was scored."""
    plane = front(results, axes)
    found = studies(results)
    names = results.benchmarks
    drawn: list[Place] = []
    means: list[Model] = []
    for study in found:
        for model in (*study.members, *study.repeats):
            drawn.append(
                _member(results, study, model)
                if isinstance(model, Member)
                else _merge(results, study, model)
            )
            means.append(model.mean("", "merged", names))
    if not drawn:
        return None
    return FigureData(
        benchmarks=tuple(escape(name, quote=False) for name in names),
        ranges=tuple(_range(drawn, len(QUANTITIES) + i) for i in range(len(names))),
        quantities=tuple(escape(name, quote=False) for name in (*QUANTITIES, *names)),
        models=tuple(drawn),
        studies=tuple(map(study_name, found)),
        fronts=tuple(
            _fronts(means, [i for i, each in enumerate(drawn) if each.study == number], names)
            for number in range(len(found))
        ),
        axes=None if plane is None else (names.index(plane.axes[0]), names.index(plane.axes[1])),
        curves=tuple(curve for study in found for curve in _curves(results, study, drawn)),
        omega_axes=tuple(map(_omega_axis, found)),
    )


def method_mark(method: str) -> Mark:
    """A method's colour and shape."""
    colour, marker = method_style(method)
    return Mark(method, colour, *SHAPES[marker])


def job_mark(job: Job) -> Mark:
    """Its method's, told apart where it is a control."""
    mark = method_mark(job.record.method)
    return _as_control(mark) if job.settings.get("aim.scaling") in CONTROLS else mark


def control_mark(results: Results) -> Mark | None:
    """The legend's entry for runs with a control; None where there are none."""
    scalings = dict.fromkeys(job.settings.get("aim.scaling", "") for job in results.scored)
    found = [scaling for scaling in scalings if scaling in CONTROLS]
    return _as_control(Mark(", ".join(found), None, *SHAPES["o"])) if found else None


def method_marks(results: Results) -> dict[str, Mark]:
    """Those of every method."""
    return {job.record.method: method_mark(job.record.method) for job in results.jobs}


def _as_control(mark: Mark) -> Mark:
    return replace(mark, symbol=f"{mark.symbol}-open-dot", path=mark.path + DOT, hollow=True)


def _member(results: Results, study: Study, member: Member) -> Place:
    benchmarks = study.benchmarks
    scores = [rival.mean("", rival.role, benchmarks).scores for rival in study.members]
    own = member.mean("", member.role, benchmarks).scores
    leads = {
        results.benchmarks.index(name): own[name].value - fmean(s[name].value for s in scores)
        for name in benchmarks
        if all(name in each for each in scores)
    }
    return _place(
        results,
        study,
        member,
        name=member.name,
        role=member.role,
        mark=Mark(member.name, None, *SHAPES[MEMBER_SHAPE]),
        peak=max(leads, key=leads.__getitem__, default=None),
    )


def _merge(results: Results, study: Study, repeats: Repeats) -> Place:
    job = repeats.first
    return _place(
        results,
        study,
        repeats,
        name=study.label(job) + (f" (n = {repeats.n})" if repeats.n > 1 else ""),
        role="merged",
        mark=job_mark(job),
        filtered=filtered(results, job),
        plain=job.record.omega is None,
        run=anchor(results, job),
    )


def _place(
    results: Results, study: Study, model: Drawn, *, name: str, role: Role, mark: Mark, **more: Any
) -> Place:
    """Percent, but for the gain."""
    quantities = (*QUANTITIES, *results.benchmarks)
    units = [1.0 if quantity == GAIN else 100.0 for quantity in quantities]
    spreads = [model.spread(quantity) for quantity in quantities]
    return Place(
        label=escape(name, quote=False),
        role=role,
        study=study.number - 1,
        values=tuple(
            None if each is None else round(unit * each.mean, 5)
            for each, unit in zip(spreads, units, strict=True)
        ),
        errors=tuple(
            None if each is None or each.stderr is None else round(unit * each.stderr, 5)
            for each, unit in zip(spreads, units, strict=True)
        ),
        draws=tuple(
            tuple(round(unit * value, 5) for value in model.values(quantity))
            for quantity, unit in zip(quantities, units, strict=True)
            if model.n > 1
        ),
        mark=mark,
        **more,
    )


def _range(drawn: Sequence[Place], quantity: int) -> tuple[float, float]:
    """Of all models, and of all their draws."""
    every = [value for place in drawn if place.draws for value in place.draws[quantity]]
    every += [value for place in drawn if (value := place.values[quantity]) is not None]
    low, high = min(every), max(every)
    margin = max(MARGIN * (high - low), 2.0)
    return low - margin, high + margin


def _fronts(
    models: Sequence[Model], chosen: Sequence[int], names: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    found = pair_fronts([models[i] for i in chosen], names)
    return {
        f"{names.index(first)},{names.index(second)}": tuple(chosen[i] for i in kept)
        for (first, second), kept in found.items()
    }


def _omega_axis(study: Study) -> DrawnAxis:
    axis = omega_axis(study_series(study))
    return DrawnAxis(axis.limits, tuple(axis.ticks), tuple(axis.ticks.values()))


def _curves(results: Results, study: Study, drawn: Sequence[Place]) -> Iterator[DrawnCurve]:
    found = study_series(study)
    axis = omega_axis(found)
    position = {each.run: i for i, each in enumerate(drawn) if each.run}

    def place(repeats: Repeats) -> int:
        return position[anchor(results, repeats.first)]

    for number, curve in enumerate(found):
        before = [other.method for other in found[:number]].count(curve.method)
        shift = axis.shift(number, len(found))
        job = curve.first.first
        shown = {n: value for n, value in filtered(results, job).items() if n != "omega"}
        yield DrawnCurve(
            study=study.number - 1,
            mark=replace(job_mark(job), name=curve.name, dash=DASHES[before % len(DASHES)]),
            filtered=shown,
            runs=tuple(map(place, curve.runs)),
            places=tuple(axis.places[run.first.record.omega or 0.0] + shift for run in curve.runs),
            null=None if curve.null is None else place(curve.null),
            null_place=axis.null + shift,
        )
