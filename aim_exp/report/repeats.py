"""Models as tables and figures show them: draws with other seeds taken together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from aim_exp.report.models import Estimate, Model, Role, gain_estimate
from aim_exp.report.results import Job
from aim_exp.store.records import RunRecord

AVERAGE, GAIN = "average", "hypervolume gain"
"""What is shown beside the benchmarks; no benchmark is called so."""


@dataclass(frozen=True)
class Spread:
    """A quantity over `n` draws: the mean, and the sample standard deviation of two or more.

    `stderr` is the standard error of one draw over its benchmark items (root mean square).
    """

    mean: float
    deviation: float | None
    stderr: float | None
    n: int

    @staticmethod
    def of(estimates: Sequence[Estimate]) -> Spread | None:
        """None of nothing."""
        if not estimates:
            return None
        values = [estimate.value for estimate in estimates]
        squares = [estimate.stderr**2 for estimate in estimates if estimate.stderr is not None]
        known = len(squares) == len(estimates)
        return Spread(
            mean=fmean(values),
            deviation=stdev(values) if len(values) > 1 else None,
            stderr=math.sqrt(fmean(squares)) if known else None,
            n=len(values),
        )


class Drawn(ABC):
    """A model, drawn with one seed or several."""

    @property
    @abstractmethod
    def n(self) -> int:
        """How many models."""

    @abstractmethod
    def estimates(self, quantity: str) -> list[Estimate]:
        """Of a benchmark, the average, or the hypervolume gain: one for each draw that has it."""

    def spread(self, quantity: str) -> Spread | None:
        """The same taken together."""
        return Spread.of(self.estimates(quantity))

    def values(self, quantity: str) -> list[float]:
        """Of every draw that has the quantity."""
        return [estimate.value for estimate in self.estimates(quantity)]

    def mean(self, name: str, role: Role, benchmarks: Iterable[str]) -> Model:
        """The model of the mean scores; the errors are those of one draw."""
        spreads = {benchmark: self.spread(benchmark) for benchmark in benchmarks}
        scores = {b: Estimate(each.mean, each.stderr) for b, each in spreads.items() if each}
        return Model(name, role, scores)


@dataclass(frozen=True)
class Member(Drawn):
    """Base, an expert, or a reference."""

    name: str
    role: Role
    models: tuple[Model, ...]

    @property
    def n(self) -> int:
        """How many models."""
        return len(self.models)

    def estimates(self, quantity: str) -> list[Estimate]:
        """No member has a hypervolume gain."""
        found = (m.average if quantity == AVERAGE else m.scores.get(quantity) for m in self.models)
        return [estimate for estimate in found if estimate is not None]


@dataclass(frozen=True)
class Repeats(Drawn):
    """Runs alike but for their seeds; `jobs` has one for each draw.

    A deterministic method gives one model whatever the seed: those runs are one draw.
    """

    runs: tuple[Job, ...]
    """All of them."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """One for each draw."""
        return draws(self.runs)

    @property
    def n(self) -> int:
        """How many models."""
        return len(self.jobs)

    @property
    def first(self) -> Job:
        """The run that stands for what all have in common."""
        return self.runs[0]

    def estimates(self, quantity: str) -> list[Estimate]:
        """One for each draw that has the quantity."""
        found = (_estimate(job, quantity) for job in self.jobs)
        return [estimate for estimate in found if estimate is not None]


def draws(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """The first run of each model on a protocol: other runs of the same one say nothing new."""
    found: dict[tuple[str, int | None], Job] = {}
    for job in jobs:
        model = responses(job.record, "merged") or str(job.directory)
        found.setdefault((model, job.population), job)
    return tuple(found.values())


def responses(record: RunRecord, model: str) -> str | None:
    """The key of a model's answers: equal for the same model, asked in the same way."""
    return (record.keys.get("responses") or {}).get(model)


def _estimate(job: Job, quantity: str) -> Estimate | None:
    assert job.merged is not None, "only scored runs are taken together"
    if quantity == AVERAGE:
        return job.merged.average
    return gain_estimate(job.record) if quantity == GAIN else job.merged.scores.get(quantity)
