"""What the page's figures show, as plain data: the script chooses from it and draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from statistics import fmean

from aim_exp.aim import SCALINGS
from aim_exp.report.html.tables import anchor, filtered
from aim_exp.report.models import Estimate, Model, Role, gain_estimate
from aim_exp.report.plots import Axes, curves, front, pair_fronts
from aim_exp.report.results import Job, Results
from aim_exp.report.style import method_style

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
SHIFT = 0.008
"""Between neighbouring curves, in omega, and at most `SPREAD` over all."""
SPREAD = 0.04


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
class Drawn:
    """A model; `values` and `errors` go by `FigureData.quantities`, in their units."""

    label: str
    """As plotly shows it: it would take `<b>` in a name for markup."""
    role: Role
    population: int | None
    values: tuple[float | None, ...]
    errors: tuple[float | None, ...]
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

    mark: Mark
    filtered: Mapping[str, str]
    """What its runs have in common of what they are filtered by."""
    runs: tuple[int, ...]
    omegas: tuple[float, ...]
    """Moved a little, or error bars would hide one another."""
    null: int | None
    null_omega: float


@dataclass(frozen=True)
class FigureData:
    """All figures; models are named by their position, benchmarks by theirs."""

    benchmarks: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    """Per benchmark, what an axis must show, in percent."""
    quantities: tuple[str, ...]
    """average, hypervolume gain, then the benchmarks; percent, but for the gain."""
    models: tuple[Drawn, ...]
    populations: int
    fronts: tuple[dict[str, tuple[int, ...]], ...]
    """Per population, by `i,j` (benchmarks, i < j): the models on the front, left to right."""
    axes: tuple[int, int] | None
    """The benchmarks of the front that is shown first; None where there are less than two."""
    curves: tuple[DrawnCurve, ...]


QUANTITIES = ("average", "hypervolume gain")


def figure_data(results: Results, axes: Axes | None = None) -> FigureData | None:
    """What the figures show; None where nothing was scored."""
    plane = front(results, axes)
    members = [
        (number, model)
        for number, population in enumerate(results.populations)
        for model in population.models
    ]
    models = [model for _, model in members] + [_merged(job) for job in results.scored]
    if not models:
        return None
    numbers = [number for number, _ in members] + [job.population for job in results.scored]
    position = {job.directory: len(members) + i for i, job in enumerate(results.scored)}
    drawn = [_member(results, number, model) for number, model in members]
    names = results.benchmarks
    return FigureData(
        benchmarks=tuple(escape(name, quote=False) for name in names),
        ranges=tuple(_range(models, name) for name in names),
        quantities=tuple(escape(name, quote=False) for name in (*QUANTITIES, *names)),
        models=(*drawn, *(_job(results, job) for job in results.scored)),
        populations=len(results.populations),
        fronts=tuple(
            _fronts(models, [i for i, other in enumerate(numbers) if other == number], names)
            for number in range(len(results.populations))
        ),
        axes=None if plane is None else (names.index(plane.axes[0]), names.index(plane.axes[1])),
        curves=tuple(_curves(results, position)),
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


def legend(figures: FigureData | None) -> list[Mark]:
    """The curves' entries: one each, and what no method names."""
    if figures is None:
        return []
    return [curve.mark for curve in figures.curves]


def _as_control(mark: Mark) -> Mark:
    return replace(mark, symbol=f"{mark.symbol}-open-dot", path=mark.path + DOT, hollow=True)


def _merged(job: Job) -> Model:
    assert job.merged is not None, "only jobs with a scored merge are drawn"
    return job.merged


def _member(results: Results, number: int, model: Model) -> Drawn:
    values, errors = _quantities(results, model, None)
    rivals = results.populations[number].models
    leads = {
        i: model.scores[name].value - fmean(rival.scores[name].value for rival in rivals)
        for i, name in enumerate(results.benchmarks)
        if all(name in rival.scores for rival in rivals)
    }
    name = results.member_name(model, number)
    return Drawn(
        label=escape(name, quote=False),
        role=model.role,
        population=number,
        values=values,
        errors=errors,
        mark=Mark(name, None, *SHAPES[MEMBER_SHAPE]),
        peak=max(leads, key=leads.__getitem__, default=None),
    )


def _job(results: Results, job: Job) -> Drawn:
    values, errors = _quantities(results, _merged(job), gain_estimate(job.record))
    return Drawn(
        label=escape(_numbered(results, results.label(job), job), quote=False),
        role="merged",
        population=job.population,
        values=values,
        errors=errors,
        mark=job_mark(job),
        filtered=filtered(results, job),
        plain=job.record.omega is None,
        run=anchor(results, job),
    )


def _quantities(
    results: Results, model: Model, gain: Estimate | None
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """In the order of `FigureData.quantities`, in percent but for the gain."""
    scores = [model.average, *[model.scores.get(name) for name in results.benchmarks]]
    average, *others = [_rounded(score, 100.0) for score in scores]
    values, errors = zip(average, _rounded(gain, 1.0), *others, strict=True)
    return values, errors


def _rounded(estimate: Estimate | None, unit: float) -> tuple[float | None, float | None]:
    if estimate is None:
        return None, None
    error = None if estimate.stderr is None else round(unit * estimate.stderr, 5)
    return round(unit * estimate.value, 5), error


def _range(models: Sequence[Model], name: str) -> tuple[float, float]:
    values = [100 * model.scores[name].value for model in models if name in model.scores]
    low, high = min(values), max(values)
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


def _numbered(results: Results, name: str, job: Job) -> str:
    """With its population's number where there are several."""
    if len(results.populations) == 1 or job.population is None:
        return name
    return f"{name} [{job.population + 1}]"


def _curves(results: Results, position: Mapping[Path, int]) -> Iterable[DrawnCurve]:
    found = curves(results)
    step = min(SHIFT, SPREAD / len(found)) if found else 0.0
    for number, curve in enumerate(found):
        before = sum(other.method == curve.method for other in found[:number])
        shift = step * (number - (len(found) - 1) / 2)
        job = curve.runs[0] if curve.runs else curve.null
        assert job is not None, "a curve has a run"
        name, dash = _numbered(results, curve.name, job), DASHES[before % len(DASHES)]
        yield DrawnCurve(
            mark=replace(job_mark(job), name=name, dash=dash),
            filtered={
                name: value for name, value in filtered(results, job).items() if name != "omega"
            },
            runs=tuple(position[job.directory] for job in curve.runs),
            omegas=tuple((job.record.omega or 0.0) + shift for job in curve.runs),
            null=None if curve.null is None else position[curve.null.directory],
            null_omega=1 + shift,
        )
