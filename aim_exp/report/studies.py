"""What can be ranked together: the models of one population, seeds apart, asked in one way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from aim_exp.keys import canonical_json
from aim_exp.pareto import non_dominated
from aim_exp.records import RunRecord
from aim_exp.report.models import Model, asked, benchmarks
from aim_exp.report.repeats import AVERAGE, Drawn, Member, Repeats, responses
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import as_text, as_words, label, short_name

SEEDS = ("seed", "population.seed", "calibration.seed")
"""Settings whose values are draws, not choices."""
AIM_SETTINGS = ("omega", "aim.", "calibration")
"""How settings begin that a plain merge does not depend on."""
SETTING = ("population", "benchmarks", "dtype")
"""How settings begin that base and experts depend on: what is compared shares them."""
NUMBER = "study"
"""What a study's number is called, where nothing else tells it from another."""
UNTOLD = {"task_files", "items"}
"""Of a protocol: digests, which say nothing to a reader."""


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
    """Models that compete: base and experts of one population, seeds apart, and their merges.

    All were asked in one way; what was asked in another one is another study, with tables of
    its own: scores of two are not to be ranked.
    """

    number: int
    """From 1, in the order of the runs."""
    runs: tuple[Job, ...]
    """All that were scored, or asked for."""
    merges: tuple[Merge, ...]
    members: tuple[Member, ...]
    references: tuple[Member, ...]
    benchmarks: tuple[str, ...]
    varying: tuple[str, ...]
    """The settings that vary in all that is reported, but for the seeds."""
    shared: Mapping[str, str]
    """Which population and protocol these are, where there are several studies."""

    @property
    def scored(self) -> list[Job]:
        """Those with a scored merge."""
        return [job for job in self.runs if job.merged is not None]

    @cached_property
    def repeats(self) -> list[Repeats]:
        """Of all merges, in the order of the runs."""
        found = [
            each for merge in self.merges for each in (*filter(None, [merge.plain]), *merge.relaxed)
        ]
        return sorted(found, key=lambda each: self.runs.index(each.first))

    @property
    def ranked(self) -> list[Repeats]:
        """The best average first."""
        averages = ((each.spread(AVERAGE), each) for each in self.repeats)
        rated = [(spread.mean if spread else 0.0, each) for spread, each in averages]
        return [each for _, each in sorted(rated, key=lambda pair: pair[0], reverse=True)]

    @property
    def repeated(self) -> bool:
        """Whether any model was drawn with several seeds."""
        return any(each.n > 1 for each in (*self.members, *self.references, *self.repeats))

    @cached_property
    def front(self) -> tuple[Drawn, ...]:
        """Those of members and merges that no other one, by its mean scores, dominates."""
        if not self.benchmarks:
            return ()
        rivals: list[Drawn] = [*self.members, *self.repeats]
        means = [each.mean("", "merged", self.benchmarks).scores for each in rivals]
        alone = non_dominated([[s[name].value for name in self.benchmarks] for s in means])
        return tuple(each for each, kept in zip(rivals, alone.tolist(), strict=True) if kept)

    def on_front(self, model: Drawn) -> bool:
        """Whether it is one of those."""
        return any(model is each for each in self.front)

    @property
    def told(self) -> list[str]:
        """The settings that tell its runs apart; method and omega, whether they vary or not."""
        return [
            name
            for name in self.varying
            if name in ("method", "omega")
            or len({job.settings[name] for job in self.runs if name in job.settings}) > 1
        ]

    def label(self, job: Job, *, leave_out: Iterable[str] = ()) -> str:
        """A run in a few words, without its seeds: `ties omega=0.4 density=0.2`."""
        hidden = (*leave_out, *SETTING)
        return label(job.settings, [name for name in self.varying if not _begins(name, hidden)])

    def setting(self, job: Job, *, leave_out: Iterable[str] = ()) -> str:
        """What varies beside method, omega and seeds: `density=0.2, scaling=uniform`."""
        told = {"method", "omega", *self.shared}
        names = [n for n in self.varying if n not in told and not _begins(n, leave_out)]
        own = {name: job.settings[name] for name in names if name in job.settings}
        return as_words({**own, **self.shared})

    def relaxation(self, job: Job) -> str:
        """What varies in how AIM was applied: `omega=0.4, scaling=uniform`; empty if nothing."""
        names = [name for name in self.varying if _begins(name, AIM_SETTINGS)]
        values = {short_name(name): job.settings[name] for name in names if name in job.settings}
        alone = values.keys() == {"omega"} and len(self.omegas) == 1
        return "" if alone else ", ".join(f"{name}={value}" for name, value in values.items())

    @property
    def omegas(self) -> list[float]:
        """Those of all runs with AIM, from strong to weak."""
        return sorted({job.record.omega for job in self.runs if job.record.omega is not None})


def studies(results: Results, jobs: Sequence[Job] | None = None) -> list[Study]:
    """Every run that was scored, or whose population was (or those of `jobs`), in its place."""
    scored = [job for job in results.jobs if job.population is not None and not job.failed]
    asked = scored if jobs is None else jobs
    varying = tuple(name for name in results.varying if name not in SEEDS)
    groups: dict[str, list[Job]] = {}
    for job in asked:
        key = _key(job, [name for name in job.settings if _begins(name, SETTING)])
        groups.setdefault(key, []).append(job)
    shared = _shared(list(groups.values()), varying)
    return [
        Study(
            number=number,
            runs=tuple(group),
            merges=tuple(_merges([j for j in group if jobs is not None or j.merged], varying)),
            members=_members(results, group, references=False),
            references=_members(results, group, references=True),
            benchmarks=tuple(
                name
                for name in results.benchmarks
                if any(name in model.scores for job in group for model in _models(results, job))
            ),
            varying=varying,
            shared=told,
        )
        for number, group, told in zip(count(1), groups.values(), shared, strict=False)
    ]


def study_marks(results: Results) -> dict[Path, str]:
    """By a run's directory, `[2]`: the number of its study; empty where there is one."""
    found = [study for study in studies(results) if study.shared]
    return {job.directory: f"[{study.number}]" for study in found for job in study.runs}


def seeds_repeat(results: Results) -> bool:
    """Whether any model was drawn with several seeds."""
    return any(study.repeated for study in studies(results))


def _members(results: Results, jobs: Iterable[Job], *, references: bool) -> tuple[Member, ...]:
    """Base and experts, or the references, by name: every draw of a model that runs share."""
    found: dict[str, dict[str, Model]] = {}
    for job in jobs:
        if job.population is not None:
            population = results.populations[job.population]
            for model in population.references if references else population.models:
                draw = responses(job.record, model.name) or str(job.population)
                found.setdefault(model.name, {})[draw] = model
    return tuple(
        Member(name, next(iter(models.values())).role, tuple(models.values()))
        for name, models in found.items()
    )


def _models(results: Results, job: Job) -> Iterator[Model]:
    if job.population is not None:
        yield from results.populations[job.population].models
    if job.merged:
        yield job.merged


def _shared(groups: Sequence[Sequence[Job]], varying: Sequence[str]) -> list[dict[str, str]]:
    """What tells each group from the others: settings, ingredients of the protocol, or a number.

    Empty where there is one.
    """
    names = [name for name in varying if _begins(name, SETTING)]
    about = [
        {**{name: group[0].settings.get(name, "–") for name in names}, **_asked(group[0].record)}
        for group in groups
    ]
    keys = list(dict.fromkeys(key for each in about for key in each))
    differing = [key for key in keys if len({each.get(key) for each in about}) > 1]
    told = [{key: each.get(key, "–") for key in differing} for each in about]
    if len(groups) < 2:
        return told
    return [
        each if told.count(each) == 1 else {**each, NUMBER: str(number)}
        for number, each in enumerate(told, 1)
    ]


def _asked(record: RunRecord) -> dict[str, str]:
    """The ingredients of its protocol; several values where its benchmarks differ."""
    found: dict[str, dict[str, None]] = {"scored": {" + ".join(benchmarks(record)): None}}
    for about in asked(record).values():
        ingredients = {**about, **(about.get("protocol") or {})}
        for name, value in ingredients.items():
            if name not in UNTOLD and name not in ("protocol", "task"):
                found.setdefault(name, {})[as_text(value)] = None
    return {name: "/".join(values) for name, values in found.items()}


def _merges(jobs: Sequence[Job], varying: Sequence[str]) -> Iterator[Merge]:
    fixed = [name for name in varying if not _begins(name, AIM_SETTINGS)]
    for group in _grouped(jobs, fixed):
        plain = [job for job in group if job.record.omega is None]
        relaxed = _grouped([job for job in group if job.record.omega is not None], varying)
        yield Merge(
            plain=Repeats(tuple(plain)) if plain else None,
            relaxed=tuple(
                sorted(
                    (Repeats(tuple(runs)) for runs in relaxed),
                    key=lambda each: each.first.record.omega or 0.0,
                )
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
    protocol = (benchmarks(job.record), asked(job.record))
    return canonical_json([values, protocol, None if drawn else job.population])


def _begins(name: str, beginnings: Iterable[str]) -> bool:
    return name.startswith(tuple(beginnings))
