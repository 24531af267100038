"""What the figures show, computed: the front of two benchmarks, and curves against omega."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from aim_exp.errors import AimError
from aim_exp.pareto import non_dominated
from aim_exp.report.models import Estimate, Model
from aim_exp.report.repeats import Repeats, Study, draws, studies
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import label

Axes = tuple[str, str]


@dataclass(frozen=True)
class Point:
    """A model in the plane of two benchmarks."""

    x: Estimate
    y: Estimate
    name: str
    on_front: bool
    method: str | None = None
    """None for a member of the population."""
    plain: bool = False
    """A merge without AIM."""


@dataclass(frozen=True)
class Path:
    """A plain merge and its runs with AIM, from weak to strong, in the plane."""

    method: str
    places: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Front:
    """Every scored model on two benchmarks; `lines` join the front of each population."""

    axes: Axes
    members: tuple[Point, ...]
    merged: tuple[Point, ...]
    paths: tuple[Path, ...]
    lines: tuple[tuple[tuple[float, float], ...], ...]
    """From left to right."""


@dataclass(frozen=True)
class Curve:
    """A method's runs that differ in omega only; `null` is their plain merge."""

    method: str
    name: str
    runs: tuple[Job, ...]
    """In the order of omega."""
    null: Job | None


@dataclass(frozen=True)
class Series:
    """A method against omega, other seeds taken together; `null` is its plain merge."""

    method: str
    setting: str
    """What else varies; empty if nothing."""
    runs: tuple[Repeats, ...]
    """In the order of omega."""
    null: Repeats | None


def front(results: Results, axes: Axes | None = None) -> Front | None:
    """The front of two benchmarks; None where nothing was scored on two.

    Base and experts take part, references do not. The default axes are the two with the
    sharpest conflict. AimError if an axis is no benchmark here.
    """
    unknown = [axis for axis in axes or () if axis not in results.benchmarks]
    if unknown:
        known = ", ".join(results.benchmarks) or "none"
        raise AimError(f"--axes {unknown[0]}: no such benchmark here; there are: {known}")
    results = replace(results, jobs=draws(results.jobs))
    axes = axes or sharpest_conflict(results)
    if axes is None:
        return None
    shown: list[tuple[int, Point]] = []
    for number, population in enumerate(results.populations):
        for model in population.models:
            shown += _placed(number, axes, model, results.member_name(model, number))
    for job in results.scored:
        if job.merged is not None and job.population is not None:
            told = (job.record.method, job.record.omega is None)
            shown += _placed(job.population, axes, job.merged, results.label(job), *told)
    if not shown:
        return None
    points, lines = [], []
    for number in range(len(results.populations)):
        own = [point for population, point in shown if population == number]
        mask = non_dominated([(point.x.value, point.y.value) for point in own]).tolist()
        points += [replace(point, on_front=on) for point, on in zip(own, mask, strict=True)]
        lines.append(
            sorted({(p.x.value, p.y.value) for p, on in zip(own, mask, strict=True) if on})
        )
    return Front(
        axes=axes,
        members=tuple(point for point in points if point.method is None),
        merged=tuple(point for point in points if point.method is not None),
        paths=_paths(results, axes),
        lines=tuple(tuple(line) for line in lines if line),
    )


def _placed(
    population: int,
    axes: Axes,
    model: Model,
    name: str,
    method: str | None = None,
    plain: bool = False,
) -> list[tuple[int, Point]]:
    """A model's point, if it has both scores."""
    if not set(axes) <= model.scores.keys():
        return []
    x, y = (model.scores[axis] for axis in axes)
    return [(population, Point(x, y, name, False, method, plain))]


def _paths(results: Results, axes: Axes) -> tuple[Path, ...]:
    paths = []
    for curve in curves(results):
        jobs = [*([curve.null] if curve.null else []), *reversed(curve.runs)]
        scores = [job.merged.scores for job in jobs if job.merged]
        places = [(s[axes[0]].value, s[axes[1]].value) for s in scores if set(axes) <= s.keys()]
        if len(places) > 1:
            paths.append(Path(curve.method, tuple(places)))
    return tuple(paths)


def sharpest_conflict(results: Results) -> Axes | None:
    """The two benchmarks whose scores have the most negative covariance over the models.

    Over base and experts; over the merges where there are too few of those. Covariance,
    not correlation: a conflict of a few items should not win.
    """
    models = [model for population in results.populations for model in population.models]
    if len(models) < 3:
        models += [job.merged for job in results.scored if job.merged is not None]
    common = [name for name in results.benchmarks if all(name in model.scores for model in models)]
    if not models or len(common) < 2:
        return None
    scores = np.array([[model.scores[name].value for name in common] for model in models])
    centred = scores - scores.mean(axis=0)
    covariance = centred.T @ centred
    first, second = min(combinations(range(len(common)), 2), key=lambda pair: covariance[pair])
    return common[first], common[second]


def pair_fronts(models: Sequence[Model], names: Sequence[str]) -> dict[Axes, tuple[int, ...]]:
    """By two benchmarks of `names`, in their order: which of `models` none dominates.

    From left to right along the first benchmark; models without both scores take no part.
    """
    fronts = {}
    for first, second in combinations(names, 2):
        scored = [i for i, model in enumerate(models) if {first, second} <= model.scores.keys()]
        places = [(models[i].scores[first].value, models[i].scores[second].value) for i in scored]
        kept = [i for i, alone in zip(scored, non_dominated(places), strict=True) if alone]
        fronts[first, second] = tuple(sorted(kept, key=lambda i: models[i].scores[first].value))
    return fronts


def curves(results: Results) -> list[Curve]:
    """A curve per method, and per other setting that varies; scored runs only."""
    series: dict[tuple[str | None, ...], list[Job]] = {}
    nulls: dict[tuple[str | None, ...], Job] = {}
    for job in results.scored:
        if job.record.omega is None:
            nulls.setdefault(_twin_key(results, job), job)
        else:
            series.setdefault(_key(results, job, leave_out=()), []).append(job)
    drawn = [
        Curve(
            method=runs[0].record.method,
            name=_series_name(results, runs[0]),
            runs=tuple(sorted(runs, key=lambda job: job.record.omega or 0.0)),
            null=nulls.get(_twin_key(results, runs[0])),
        )
        for runs in series.values()
    ]
    paired = {curve.null.directory for curve in drawn if curve.null}
    alone = [job for job in nulls.values() if job.directory not in paired]
    return drawn + [Curve(job.record.method, _series_name(results, job), (), job) for job in alone]


def series(results: Results) -> list[Series]:
    """A series per method, and per other setting that varies, seeds apart; scored runs only."""
    return [each for study in studies(results) for each in _series(study)]


def _series(study: Study) -> Iterator[Series]:
    for merge in study.merges:
        lines: dict[str, list[Repeats]] = {}
        for repeats in merge.relaxed:
            lines.setdefault(study.setting(repeats.first), []).append(repeats)
        if not lines:
            lines = {study.setting(merge.first): []}
        for setting, runs in lines.items():
            yield Series(merge.first.record.method, setting, tuple(runs), merge.plain)


def _key(results: Results, job: Job, leave_out: Sequence[str]) -> tuple[str | None, ...]:
    """What a curve's runs have in common: all that varies but omega."""
    values = [
        job.settings.get(name)
        for name in results.varying
        if name != "omega" and not name.startswith(tuple(leave_out))
    ]
    return (str(job.population), *values)


def _twin_key(results: Results, job: Job) -> tuple[str | None, ...]:
    """The same for plain merges: how AIM measures does not matter to them."""
    return _key(results, job, leave_out=("aim.", "calibration"))


def _series_name(results: Results, job: Job) -> str:
    return label(job.settings, [name for name in results.varying if name != "omega"])
