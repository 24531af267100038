"""Runs that differ in seeds only, taken together: a mean and its spread for tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from aim_exp.keys import canonical_json
from aim_exp.records import RunRecord
from aim_exp.report.models import Estimate, Model, gain_estimate
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import as_words, label, short_name

SEEDS = ("seed", "population.seed", "calibration.seed")
"""Settings whose values are draws, not choices."""
AIM_SETTINGS = ("omega", "aim.", "calibration")
"""How settings begin that a plain merge does not depend on."""
SETTING = ("population", "benchmarks", "dtype")
"""How settings begin that base and experts depend on: what is compared shares them."""
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


@dataclass(frozen=True)
class Repeats:
    """Runs alike but for their seeds; `jobs` has one for each draw.

    A deterministic method gives one model whatever the seed: those runs are one draw.
    """

    jobs: tuple[Job, ...]

    @property
    def first(self) -> Job:
        """The run that stands for what all have in common."""
        return self.jobs[0]

    def spread(self, quantity: str) -> Spread | None:
        """Of a benchmark, the average, or the hypervolume gain."""
        found = (_estimate(job, quantity) for job in self.jobs)
        return Spread.of([estimate for estimate in found if estimate is not None])

    def values(self, quantity: str) -> list[float]:
        """Of every draw that has the quantity."""
        found = (_estimate(job, quantity) for job in self.jobs)
        return [estimate.value for estimate in found if estimate is not None]


@dataclass(frozen=True)
class Merge:
    """What a method makes of some experts: without AIM, and with it in every way that was run."""

    plain: Repeats | None
    relaxed: tuple[Repeats, ...]

    @property
    def first(self) -> Job:
        """The run that stands for what all have in common."""
        return (self.plain or self.relaxed[0]).first


@dataclass(frozen=True)
class Study:
    """Merges of one population, scored in one way; members and references by their names."""

    merges: tuple[Merge, ...]
    varying: tuple[str, ...]
    """The settings that vary in all that is reported, but for the seeds."""
    shared: Mapping[str, str]
    """Which population and benchmarks these are, where there are several."""

    @property
    def repeats(self) -> list[Repeats]:
        """Of all merges, the plain one first."""
        return [
            each for merge in self.merges for each in (*filter(None, [merge.plain]), *merge.relaxed)
        ]

    @cached_property
    def jobs(self) -> list[Job]:
        """One for each draw of each merge."""
        return [job for repeats in self.repeats for job in repeats.jobs]

    def label(self, job: Job, *, leave_out: Iterable[str] = ()) -> str:
        """A run in a few words, without its seeds: `ties omega=0.4 density=0.2`."""
        hidden = (*leave_out, *SETTING)
        return label(job.settings, [name for name in self.varying if not _begins(name, hidden)])

    def setting(self, job: Job) -> str:
        """What varies beside method, omega and seeds: `density=0.2, scaling=uniform`."""
        names = [name for name in self.varying if name not in ("method", "omega")]
        return as_words({name: job.settings[name] for name in names if name in job.settings})

    def relaxation(self, job: Job) -> str:
        """What varies in how AIM was applied: `omega=0.4, scaling=uniform`; empty if nothing."""
        names = [name for name in self.varying if _begins(name, AIM_SETTINGS)]
        values = {short_name(name): job.settings[name] for name in names if name in job.settings}
        alone = values.keys() == {"omega"} and len(self.omegas) == 1
        return "" if alone else ", ".join(f"{name}={value}" for name, value in values.items())

    @property
    def omegas(self) -> list[float]:
        """Those of all runs with AIM, from strong to weak."""
        return sorted({job.record.omega for job in self.jobs if job.record.omega is not None})


def studies(results: Results, jobs: Iterable[Job] | None = None) -> list[Study]:
    """Every scored run (or those of `jobs`) in its place, in the order of the runs."""
    varying = tuple(name for name in results.varying if name not in SEEDS)
    groups: dict[str, list[Job]] = {}
    for job in results.scored if jobs is None else jobs:
        key = _key(job, [name for name in job.settings if _begins(name, SETTING)])
        groups.setdefault(key, []).append(job)
    return [
        Study(
            merges=tuple(_merges(group, varying)),
            varying=varying,
            shared={n: group[0].settings.get(n, "–") for n in varying if _begins(n, SETTING)},
        )
        for group in groups.values()
    ]


def seeds_repeat(results: Results) -> bool:
    """Whether any model was drawn with several seeds."""
    return any(len(each.jobs) > 1 for study in studies(results) for each in study.repeats)


def draws(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """The first run of each model on a protocol: other runs of the same one say nothing new."""
    found: dict[tuple[str, int | None], Job] = {}
    for job in jobs:
        model = _responses(job.record, "merged") or str(job.directory)
        found.setdefault((model, job.population), job)
    return tuple(found.values())


def members(study: Study, of: Mapping[int, Sequence[Model]]) -> dict[str, list[Model]]:
    """By name, every draw of a model that the study's runs share.

    `of` gives the models of each of `Results.populations`.
    """
    found: dict[str, dict[str, Model]] = {}
    for job in study.jobs:
        if job.population is not None:
            for model in of[job.population]:
                draw = _responses(job.record, model.name) or str(job.population)
                found.setdefault(model.name, {})[draw] = model
    return {name: list(models.values()) for name, models in found.items()}


def _merges(jobs: Sequence[Job], varying: Sequence[str]) -> Iterable[Merge]:
    fixed = [name for name in varying if not _begins(name, AIM_SETTINGS)]
    for group in _grouped(jobs, fixed):
        plain = [job for job in group if job.record.omega is None]
        relaxed = _grouped([job for job in group if job.record.omega is not None], varying)
        yield Merge(
            plain=_repeats(plain) if plain else None,
            relaxed=tuple(
                sorted(map(_repeats, relaxed), key=lambda each: each.first.record.omega or 0.0)
            ),
        )


def _grouped(jobs: Iterable[Job], names: Sequence[str]) -> list[list[Job]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(_key(job, names), []).append(job)
    return list(groups.values())


def _key(job: Job, names: Sequence[str]) -> str:
    """Equal for runs with the same values of `names`, seeds apart, scored in the same way.

    A population without a seed of its own is another one where its scores are others.
    """
    values = {name: job.settings.get(name) for name in names if name not in SEEDS}
    drawn = job.settings.get("population.seed", "null") != "null"
    protocols = {name: about.get("protocol") for name, about in job.record.benchmarks.items()}
    return canonical_json([values, protocols, None if drawn else job.population])


def _repeats(jobs: Sequence[Job]) -> Repeats:
    return Repeats(draws(jobs))


def _responses(record: RunRecord, model: str) -> str | None:
    """The key of a model's answers: equal for the same model, asked in the same way."""
    return (record.keys.get("responses") or {}).get(model)


def _estimate(job: Job, quantity: str) -> Estimate | None:
    assert job.merged is not None, "only scored runs are taken together"
    if quantity == AVERAGE:
        return job.merged.average
    return gain_estimate(job.record) if quantity == GAIN else job.merged.scores.get(quantity)


def _begins(name: str, beginnings: Iterable[str]) -> bool:
    return name.startswith(tuple(beginnings))
