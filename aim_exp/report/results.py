"""The runs found in some directories, joined: jobs, populations, and what they differ in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aim_exp.pareto import non_dominated
from aim_exp.report.models import (
    Model,
    asked,
    benchmarks,
    merged_model,
    population_models,
    reference_models,
)
from aim_exp.report.settings import Settings, label, settings_of, varying
from aim_exp.store.keys import canonical_json
from aim_exp.store.records import INTERRUPTED, RunRecord, find_records

LONG = 16
"""Characters: a job's folder with more of them has a short name for narrow places."""


@dataclass(frozen=True)
class Job:
    """One run: its folder, its record, and its merged model where that was scored."""

    folder: str
    """Below the directory that was asked for."""
    name: str
    """The same, with the sweep's number where folders are long: `S2/7`."""
    directory: Path
    record: RunRecord
    settings: Settings
    merged: Model | None
    population: int | None
    """Which of `Results.populations` it was compared with; None if nothing was scored."""
    repeats: tuple[Job, ...] = ()
    """The same run in other sweeps: model, settings and results. This one stands for them."""

    @property
    def failed(self) -> bool:
        """Whether the run ended with an error, or by Ctrl-C."""
        return self.record.status != "completed"

    @property
    def ended(self) -> str:
        """How, where that was early: `failed`, or `interrupted` (by Ctrl-C); else empty."""
        if not self.failed:
            return ""
        return INTERRUPTED if self.record.error == INTERRUPTED else "failed"

    @property
    def seconds(self) -> float | None:
        """What the whole run took."""
        timings = self.record.timings
        return timings.get("total", sum(timings.values())) if timings else None

    @property
    def seconds_in_all(self) -> float:
        """With what its repeats took: of the same work, the store did it once."""
        return sum(run.seconds or 0.0 for run in (self, *self.repeats))


@dataclass(frozen=True)
class ScoredPopulation:
    """A population as scored by the jobs that were compared with it."""

    models: tuple[Model, ...]
    """Base and experts."""
    references: tuple[Model, ...]
    models_on_front: frozenset[str]
    """Those of base and experts that no other of them, and none of the jobs, dominates."""
    jobs_on_front: frozenset[Path]
    """The folders of the jobs that none of the others, and none of these models, dominates."""


@dataclass(frozen=True)
class Results:
    """Everything found."""

    jobs: tuple[Job, ...]
    populations: tuple[ScoredPopulation, ...]
    benchmarks: tuple[str, ...]
    varying: tuple[str, ...]
    """The settings that differ between jobs, `method` and `omega` first."""
    sweeps: Mapping[str, str] = field(default_factory=dict)
    """By the numbers in the jobs' names, the directories; empty where folders are short."""
    planned: int | None = None
    """How many jobs the sweep has, where it ended and that is known."""

    @property
    def scored(self) -> list[Job]:
        """The jobs with a scored merge."""
        return [job for job in self.jobs if job.merged is not None]

    @property
    def has_plain(self) -> bool:
        """Whether a merge without AIM was scored."""
        return any(job.record.omega is None for job in self.scored)

    @property
    def has_relaxed(self) -> bool:
        """Whether a merge with AIM was scored."""
        return any(job.record.omega is not None for job in self.scored)

    @property
    def failed(self) -> list[Job]:
        """The jobs that ended with an error."""
        return [job for job in self.jobs if job.failed]

    @property
    def repeated(self) -> list[Job]:
        """The jobs that stand in several sweeps and are listed once."""
        return [job for job in self.jobs if job.repeats]

    def label(self, job: Job) -> str:
        """A job in a few words: `ties omega=0.4 density=0.2`."""
        return label(job.settings, self.varying)

    def on_front(self, job: Job) -> bool:
        """Whether no model that was compared with the same population dominates the job's."""
        if job.population is None:
            return False
        return job.directory in self.populations[job.population].jobs_on_front

    def member_name(self, model: Model, population: int) -> str:
        """A model's name, with its population's number where there are several."""
        return model.name if len(self.populations) == 1 else f"{model.name} [{population + 1}]"


def collect(*directories: Path) -> Results:
    """Every record in or below `directories`."""
    return join(find_records(*directories), directories)


def join(found: Sequence[tuple[Path, RunRecord]], directories: Sequence[Path]) -> Results:
    """Records with their folders as results; folders are named below `directories`."""
    top = Path(os.path.commonpath([directory.resolve() for directory in directories]))
    keys = list(dict.fromkeys(filter(None, (_population_key(record) for _, record in found))))
    every, sweeps = _numbered([_job(folder, record, top, keys) for folder, record in found])
    jobs = _once(every)
    return Results(
        jobs=tuple(jobs),
        populations=tuple(
            _population([job for job in jobs if job.population == number])
            for number in range(len(keys))
        ),
        benchmarks=tuple(dict.fromkeys(name for _, record in found for name in benchmarks(record))),
        varying=varying(job.settings for job in jobs),
        sweeps=sweeps,
    )


def _job(folder: Path, record: RunRecord, top: Path, keys: Sequence[str]) -> Job:
    key = _population_key(record)
    below = os.path.relpath(folder.resolve(), top)
    name = folder.resolve().name if below == "." else below
    return Job(
        folder=name,
        name=name,
        directory=folder,
        record=record,
        settings=settings_of(record),
        merged=merged_model(record),
        population=None if key is None else keys.index(key),
    )


def _numbered(jobs: Sequence[Job]) -> tuple[list[Job], dict[str, str]]:
    """Jobs named by the numbers of their directories, if there are several and they are long."""
    above = list(dict.fromkeys(os.path.dirname(job.folder) for job in jobs))
    if len(above) < 2 or max(len(job.folder) for job in jobs) <= LONG:
        return list(jobs), {}
    numbers = {directory: f"S{number}" for number, directory in enumerate(above, 1)}
    named = [
        replace(job, name=f"{numbers[os.path.dirname(job.folder)]}/{os.path.basename(job.folder)}")
        for job in jobs
    ]
    return named, {number: directory or "." for directory, number in numbers.items()}


def _once(jobs: Sequence[Job]) -> list[Job]:
    """Without the repeats of a run in other sweeps, which the first run tells of.

    A sweep keeps its own: it lists every job that it was asked for.
    """
    alike: dict[str, list[Job]] = {}
    for job in jobs:
        alike.setdefault(_identity(job), []).append(job)
    repeats = {
        first.directory: tuple(o for o in others if o.directory.parent != first.directory.parent)
        for first, *others in alike.values()
    }
    left_out = {job.directory for found in repeats.values() for job in found}
    return [
        replace(job, repeats=repeats.get(job.directory, ()))
        for job in jobs
        if job.directory not in left_out
    ]


def _identity(job: Job) -> str:
    """Equal where model, settings and results are; a run that made no model is like no other."""
    record = job.record
    if job.failed or "merged" not in record.keys.get("weights", {}):
        return str(job.directory)
    scores = (record.scores, record.population_scores, record.reference_scores)
    errors = (record.stderr, record.population_stderr, record.reference_stderr)
    return canonical_json([record.keys, dict(job.settings), scores, errors])


def _population_key(record: RunRecord) -> str | None:
    """Equal where runs can be compared: the same population, asked alike, with the same scores.

    Another seed gives base and experts other scores, whatever their names.
    """
    if not record.scores and not record.population_scores:
        return None
    return canonical_json([record.population.get("name"), asked(record), record.population_scores])


def _population(jobs: Sequence[Job]) -> ScoredPopulation:
    """What `jobs` were compared with, and the front of all of them together."""
    models = population_models(jobs[0].record)
    merged = {job.directory: job.merged for job in jobs if job.merged is not None}
    names = benchmarks(jobs[0].record)
    points = [[model.scores[name].value for name in names] for model in (*models, *merged.values())]
    on_front = iter(non_dominated(points).tolist())
    references = {model.name: model for job in jobs for model in reference_models(job.record)}
    return ScoredPopulation(
        models=tuple(models),
        references=tuple(references.values()),
        models_on_front=frozenset(model.name for model in models if next(on_front)),
        jobs_on_front=frozenset(directory for directory in merged if next(on_front)),
    )
