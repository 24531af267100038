"""What the figures show, computed: the front of two benchmarks, and series against omega.

Of a model that was drawn with several seeds they show the mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np

from aim_exp.errors import AimError
from aim_exp.pareto import non_dominated
from aim_exp.report.models import Estimate, Model
from aim_exp.report.repeats import Drawn, Repeats
from aim_exp.report.results import Results
from aim_exp.report.studies import Study, studies
from aim_exp.report.summary import study_name

Axes = tuple[str, str]
Place = tuple[float, float]
TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of omega."""
SHIFT = 0.06
"""Between neighbouring series, and at most `SPREAD` over all; of the least step along the axis."""
SPREAD = 0.6


@dataclass(frozen=True)
class Point:
    """A model in the plane of two benchmarks."""

    x: Estimate
    y: Estimate
    name: str
    on_front: bool
    draws: tuple[Place, ...] = ()
    """Each of several seeds, around their mean."""
    method: str | None = None
    """None for a member of the population."""
    plain: bool = False
    """A merge without AIM."""


@dataclass(frozen=True)
class Path:
    """A plain merge and its runs with AIM, from weak to strong, in the plane."""

    method: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Plane:
    """Every scored model of a study on two benchmarks."""

    title: str
    """Which study this is, where there are several."""
    members: tuple[Point, ...]
    merged: tuple[Point, ...]
    paths: tuple[Path, ...]
    line: tuple[Place, ...]
    """Joins the front, from left to right."""

    @property
    def points(self) -> tuple[Point, ...]:
        """All of them."""
        return (*self.members, *self.merged)

    @property
    def typical_error(self) -> Place | None:
        """The median standard error in x and in y; None where none is known."""
        errors = [(point.x.stderr, point.y.stderr) for point in self.points]
        known = [(x, y) for x, y in errors if x is not None and y is not None]
        if not known:
            return None
        x, y = (sorted(values)[len(values) // 2] for values in zip(*known, strict=True))
        return x, y


@dataclass(frozen=True)
class Front:
    """Two benchmarks, and a plane for each study that has a model scored on both."""

    axes: Axes
    planes: tuple[Plane, ...]


@dataclass(frozen=True)
class Series:
    """A method against omega, other seeds taken together; `null` is its plain merge."""

    method: str
    setting: str
    """What else varies; empty if nothing."""
    runs: tuple[Repeats, ...]
    """In the order of omega."""
    null: Repeats | None
    study: Study

    @property
    def name(self) -> str:
        """The method, and what else varies."""
        return f"{self.method} {self.setting}".rstrip()

    @property
    def first(self) -> Repeats:
        """What stands for all."""
        first = self.runs[0] if self.runs else self.null
        assert first, "a series has a run"
        return first

    @property
    def path(self) -> tuple[Repeats, ...]:
        """From the plain merge to the strongest relaxation."""
        return (*filter(None, [self.null]), *reversed(self.runs))


def front(results: Results, axes: Axes | None = None) -> Front | None:
    """The front of two benchmarks; None where nothing was scored on two.

    Base and experts take part, references do not. The default axes are the two with the
    sharpest conflict. AimError if an axis is no benchmark here.
    """
    unknown = [axis for axis in axes or () if axis not in results.benchmarks]
    if unknown:
        known = ", ".join(results.benchmarks) or "none"
        raise AimError(f"--axes {unknown[0]}: no such benchmark here; there are: {known}")
    found = studies(results)
    axes = axes or sharpest_conflict(found)
    if axes is None:
        return None
    planes = tuple(plane for study in found if (plane := _plane(study, axes)).points)
    return Front(axes, planes) if planes else None


def _plane(study: Study, axes: Axes) -> Plane:
    points = list(_points(study, axes))
    mask = non_dominated([(point.x.value, point.y.value) for point in points]).tolist()
    points = [replace(point, on_front=on) for point, on in zip(points, mask, strict=True)]
    return Plane(
        title=study_name(study),
        members=tuple(point for point in points if point.method is None),
        merged=tuple(point for point in points if point.method is not None),
        paths=tuple(_paths(study, axes)),
        line=tuple(sorted({(p.x.value, p.y.value) for p in points if p.on_front})),
    )


def _points(study: Study, axes: Axes) -> Iterator[Point]:
    """Of the models that have both scores."""
    for member in study.members:
        yield from _point(member, axes, member.name)
    for repeats in study.repeats:
        record = repeats.first.record
        for point in _point(repeats, axes, study.label(repeats.first)):
            yield replace(point, method=record.method, plain=record.omega is None)


def _point(model: Drawn, axes: Axes, name: str) -> Iterator[Point]:
    x, y = map(model.spread, axes)
    if x and y:
        every = tuple(zip(*map(model.values, axes), strict=True)) if model.n > 1 else ()
        yield Point(Estimate(x.mean, x.stderr), Estimate(y.mean, y.stderr), name, False, every)


def _paths(study: Study, axes: Axes) -> Iterator[Path]:
    for each in study_series(study):
        spreads = [[run.spread(axis) for axis in axes] for run in each.path]
        places = [(x.mean, y.mean) for x, y in spreads if x and y]
        if len(places) > 1:
            yield Path(each.method, tuple(places))


def sharpest_conflict(found: Sequence[Study]) -> Axes | None:
    """The two benchmarks whose scores have the most negative covariance over the models.

    Over base and experts; over the merges where there are too few of those. Covariance,
    not correlation: a conflict of a few items should not win.
    """
    models: list[Drawn] = [member for study in found for member in study.members]
    if len(models) < 3:
        models += [repeats for study in found for repeats in study.repeats]
    names = dict.fromkeys(name for study in found for name in study.benchmarks)
    rows = [{name: model.spread(name) for name in names} for model in models]
    common = [name for name in names if all(row[name] for row in rows)]
    if not models or len(common) < 2:
        return None
    scores = np.array([[spread.mean for name in common if (spread := row[name])] for row in rows])
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


def series(results: Results) -> list[Series]:
    """A series per method, and per other setting that varies, seeds apart; scored runs only."""
    return [each for study in studies(results) for each in study_series(study)]


def study_series(study: Study) -> list[Series]:
    """Those of one study."""
    found = []
    for merge in study.merges:
        lines: dict[str, list[Repeats]] = {}
        for repeats in merge.relaxed:
            lines.setdefault(study.own_setting(repeats.first), []).append(repeats)
        if not lines:
            lines = {study.own_setting(merge.first): []}
        for setting, runs in lines.items():
            found.append(
                Series(merge.first.record.method, setting, tuple(runs), merge.plain, study)
            )
    return found


@dataclass(frozen=True)
class OmegaAxis:
    """Where runs stand: at their omega, but at even steps where there is only one."""

    places: Mapping[float, float]
    null: float
    """The place of the plain merges, which omega 1 equals."""
    step: float
    """The least between two places."""
    limits: tuple[float, float]
    ticks: Mapping[float, str]
    """By place."""

    def shift(self, number: int, count: int) -> float:
        """Of one of `count` series, or their points would hide one another."""
        return min(SHIFT, SPREAD / count) * self.step * (number - (count - 1) / 2)


def omega_axis(drawn: Sequence[Series]) -> OmegaAxis:
    """The axis that these series share."""
    omegas = sorted({run.first.record.omega or 0.0 for each in drawn for run in each.runs})
    plain = any(each.null for each in drawn)
    if len(omegas) < 2:
        names = [*(f"{omega:g}" for omega in omegas), *["null"] * plain]
        return OmegaAxis(
            places=dict.fromkeys(omegas, 0.0),
            null=float(len(omegas)),
            step=1.0,
            limits=(-0.5, len(names) - 0.5),
            ticks={float(place): name for place, name in enumerate(names)},
        )
    places = sorted({*omegas, 1.0} if plain else omegas)
    step = min(after - before for before, after in pairwise(places))
    room = max(0.03, step * SPREAD / 2)
    names = [*(f"{tick:g}" for tick in TICKS[:-1]), "null" if plain else "1"]
    return OmegaAxis(
        places={omega: omega for omega in omegas},
        null=1.0,
        step=step,
        limits=(-room, 1 + room),
        ticks=dict(zip(TICKS, names, strict=True)),
    )
