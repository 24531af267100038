"""The runs found in some directories, joined: jobs, populations, and what they differ in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aim_exp.keys import canonical_json
from aim_exp.pareto import non_dominated
from aim_exp.records import RunRecord, find_records
from aim_exp.report.models import (
    Model,
    benchmarks,
    merged_model,
    population_models,
    reference_models,
)
from aim_exp.report.settings import Settings, label, settings_of, varying


@dataclass(frozen=True)
class Job:
    """One run: its folder, its record, and its merged model where that was scored."""

    folder: str
    """Below the directory that was asked for."""
    directory: Path
    record: RunRecord
    settings: Settings
    merged: Model | None
    population: int | None
    """Which of `Results.populations` it was compared with; None if nothing was scored."""

    @property
    def failed(self) -> bool:
        """Whether the run ended with an error."""
        return self.record.status != "completed"

    @property
    def seconds(self) -> float | None:
        """What the whole run took."""
        timings = self.record.timings
        return timings.get("total", sum(timings.values())) if timings else None


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

    @property
    def scored(self) -> list[Job]:
        """The jobs with a scored merge."""
        return [job for job in self.jobs if job.merged is not None]

    @property
    def failed(self) -> list[Job]:
        """The jobs that ended with an error."""
        return [job for job in self.jobs if job.failed]

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
    jobs = [_job(folder, record, top, keys) for folder, record in found]
    return Results(
        jobs=tuple(jobs),
        populations=tuple(
            _population([job for job in jobs if job.population == number])
            for number in range(len(keys))
        ),
        benchmarks=tuple(dict.fromkeys(name for _, record in found for name in benchmarks(record))),
        varying=varying(job.settings for job in jobs),
    )


def _job(folder: Path, record: RunRecord, top: Path, keys: Sequence[str]) -> Job:
    key = _population_key(record)
    name = os.path.relpath(folder.resolve(), top)
    return Job(
        folder=folder.resolve().name if name == "." else name,
        directory=folder,
        record=record,
        settings=settings_of(record),
        merged=merged_model(record),
        population=None if key is None else keys.index(key),
    )


def _population_key(record: RunRecord) -> str | None:
    """Equal where runs can be compared: the same population, with the same scores.

    Another seed, limit or template gives base and experts other scores, whatever their names.
    """
    if not record.scores and not record.population_scores:
        return None
    return canonical_json([record.population.get("name"), record.population_scores])


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
