"""What can be ranked together: the models of one population, or of its draws, asked in one way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from aim_exp.pareto import non_dominated
from aim_exp.report.models import Model, asked, benchmarks
from aim_exp.report.repeats import AVERAGE, Drawn, Member, Repeats, responses
from aim_exp.report.results import Job, Results
from aim_exp.report.seeds import SEEDS, Pool, grouped, pools, settings_used
from aim_exp.report.settings import Settings, as_text, as_words, label, short_name
from aim_exp.store.records import RunRecord

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
    """Models that compete: base and experts of one population, or of its draws, and their merges.

    All were asked in one way; what was asked in another one is another study, with tables of
    its own: scores of two are not to be ranked. So are populations of other seeds, unless all
    merges were made from each of them.
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
    """The settings that vary in all that is reported, but for the draws."""
    shared: Mapping[str, str]
    """Which population and protocol these are, where there are several studies."""
    draws: Mapping[str, int]
    """The seeds that are averaged over, with the number of their values."""
    gaps: tuple[str, ...]
    """Why other seeds are not averaged over: a sentence each."""

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
            or len({used[name] for used in map(settings_used, self.runs) if name in used}) > 1
        ]

    def settings(self, job: Job) -> Settings:
        """Those that a run depends on: a method without randomness has no seed."""
        return settings_used(job)

    def largest_error(self, column: str) -> float | None:
        """The largest standard error of one model over the items; None where none is known."""
        spreads = (each.spread(column) for each in (*self.members, *self.references, *self.repeats))
        return max((s.stderr for s in spreads if s and s.stderr is not None), default=None)

    def label(self, job: Job, *, leave_out: Iterable[str] = ()) -> str:
        """A run in a few words, without its draws: `ties omega=0.4 density=0.2`."""
        hidden = (*leave_out, *SETTING)
        return label(
            settings_used(job), [name for name in self.varying if not _begins(name, hidden)]
        )

    def setting(self, job: Job, *, leave_out: Iterable[str] = ()) -> str:
        """What varies beside method, omega and seeds: `density=0.2, limit=20`."""
        return as_words({**self._own(job, leave_out), **self.shared})

    def own_setting(self, job: Job) -> str:
        """The same, but for what all runs of the study share: `density=0.2, scaling=uniform`."""
        return as_words(self._own(job, ()))

    def _own(self, job: Job, leave_out: Iterable[str]) -> dict[str, str]:
        told = {"method", "omega", *self.shared}
        names = [n for n in self.varying if n not in told and not _begins(n, leave_out)]
        return {name: job.settings[name] for name in names if name in job.settings}

    def relaxation(self, job: Job) -> str:
        """What varies in how AIM was applied: `omega=0.4, scaling=uniform`; empty if nothing."""
        names = [name for name in self.varying if _begins(name, AIM_SETTINGS)]
        used = settings_used(job)
        values = {short_name(name): used[name] for name in names if name in used}
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
    of_members = {name for job in asked for name in job.settings if _begins(name, SETTING)}
    found = [
        pool
        for group in grouped(asked, sorted(of_members - SEEDS.keys()))
        for pool in pools(
            group, [j for j in group if jobs is not None or j.merged], results.varying
        )
    ]
    apart = {seed for pool in found for seed in pool.settings}
    shared = _shared(
        [pool.runs for pool in found], [n for n in results.varying if n in apart or n not in SEEDS]
    )
    return [
        _study(results, number, pool, words)
        for number, pool, words in zip(count(1), found, shared, strict=False)
    ]


def study_marks(results: Results) -> dict[Path, str]:
    """By a run's directory, `[2]`: the number of its study; empty where there is one."""
    found = [study for study in studies(results) if study.shared]
    return {job.directory: f"[{study.number}]" for study in found for job in study.runs}


def seeds_repeat(results: Results) -> bool:
    """Whether any model was drawn with several seeds."""
    return any(study.repeated for study in studies(results))


def _study(results: Results, number: int, pool: Pool, shared: Mapping[str, str]) -> Study:
    varying = tuple(n for n in results.varying if n in pool.settings or n not in SEEDS)
    scored = {name for job in pool.runs for model in _models(results, job) for name in model.scores}
    return Study(
        number=number,
        runs=pool.runs,
        merges=tuple(_merges(pool.merges, varying)),
        members=_members(results, pool.runs, references=False),
        references=_members(results, pool.runs, references=True),
        benchmarks=tuple(name for name in results.benchmarks if name in scored),
        varying=varying,
        shared=shared,
        draws=pool.draws,
        gaps=pool.gaps,
    )


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
        {**{name: _values(group, name) for name in names}, **_asked(group[0].record)}
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


def _values(jobs: Iterable[Job], name: str) -> str:
    """One, but for a seed that is averaged over: `0/1/2`."""
    return "/".join(dict.fromkeys(job.settings.get(name, "–") for job in jobs))


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
    """Runs with AIM go with the plain merge of the same seeds, as far as that depends on any."""
    fixed = [name for name in varying if not _begins(name, AIM_SETTINGS)]
    for alike in grouped(jobs, [name for name in fixed if name not in SEEDS]):
        used = [settings_used(job) for job in alike if job.record.omega is None]
        drawn = [name for name in fixed if name in SEEDS and any(name in each for each in used)]
        for group in grouped(alike, drawn):
            yield _merge(group, varying)


def _merge(jobs: Sequence[Job], varying: Sequence[str]) -> Merge:
    plain = [job for job in jobs if job.record.omega is None]
    relaxed = grouped([job for job in jobs if job.record.omega is not None], varying)
    return Merge(
        plain=Repeats(tuple(plain)) if plain else None,
        relaxed=tuple(
            sorted(
                (Repeats(tuple(runs)) for runs in relaxed),
                key=lambda each: each.first.record.omega or 0.0,
            )
        ),
    )


def _begins(name: str, beginnings: Iterable[str]) -> bool:
    return name.startswith(tuple(beginnings))
