"""Directories to runs: every job asked for, its record where there is one, and what is odd."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from aim_exp.errors import AimError
from aim_exp.report.items import Source
from aim_exp.report.settings import settings_of, settings_with_effect, with_effect
from aim_exp.store.run_record import (
    FILE_NAME,
    INTERRUPTED,
    SHARED_FOLDER,
    RunRecord,
    natural_order,
    read_record,
)
from aim_exp.store.sweeps import FILE_NAME as SWEEP_FILE
from aim_exp.store.sweeps import read_sweep

NOT_RUN, UNREADABLE = "not run", "unreadable"
"""Beside a record's own statuses: never begun; a record that this code cannot read."""
LONG = 16
"""Characters: of several sweeps, folders of jobs that are longer have numbers in their place."""


@dataclass(frozen=True, eq=False)
class Job:
    """One run that was asked for."""

    sweep: str
    """Its sweep's folder, below the directory that all that is reported has in common; of one
    sweep, or a run by itself, `.`."""
    name: str
    """Its folder below the sweep's: `7`; of a run by itself `.`."""
    title: str
    """The name, with a number for the sweep where there are several: `S2/7`."""
    folder: str
    """Below the directory that all have in common: `2026-01-02_ab12/7`."""
    directory: Path
    record: RunRecord | None
    """None where it was not begun, or cannot be read."""
    status: str
    """The record's (`running`, `completed`, `failed`), `not run` or `unreadable`."""
    shared: Path
    """What it has in common with the other jobs of its sweep."""
    overrides: tuple[str, ...] = ()
    """As given, where the sweep or the record says so."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every one by its full key; empty without a record."""
        return settings_of(self.record) if self.record else {}

    @cached_property
    def settings_with_effect(self) -> dict[str, Any]:
        """Those that its numbers depend on; of a job that was not begun, what its overrides say."""
        if self.record:
            return settings_with_effect(self.record, self.settings)
        return with_effect(self.asked_for)

    @property
    def asked_for(self) -> dict[str, str]:
        """What its overrides say."""
        pairs = (override.lstrip("+").partition("=") for override in self.overrides)
        return {name: value for name, equals, value in pairs if equals}

    @cached_property
    def sources(self) -> dict[str, dict[str, Source]]:
        """Where the items of each model lie, by its name and benchmark."""
        return {
            model.name: {name: Source.of(s, self.directory) for name, s in model.scores.items()}
            for model in (self.record.models if self.record else ())
        }

    @property
    def ended_early(self) -> str:
        """`failed`, `interrupted` (by Ctrl-C), `not run`, ...; empty where it completed."""
        if self.status == "completed":
            return ""
        interrupted = self.record is not None and self.record.error == INTERRUPTED
        return INTERRUPTED if interrupted else self.status

    @property
    def seconds(self) -> float | None:
        timings = self.record.timings if self.record else {}
        return timings.get("total", sum(timings.values())) if timings else None


@dataclass(frozen=True)
class Runs:
    """All runs in or below some directories, in the order of their folders."""

    directory: Path
    """What they have in common."""
    jobs: tuple[Job, ...]
    problems: tuple[str, ...]
    """A line each: `5 of 6 runs read; sweep/3: result.json is not JSON`."""
    sweeps: Mapping[str, str]
    """By the numbers in titles (`S2`), the sweep's folder; empty where there is one."""


def load(*directories: Path) -> Runs:
    """Every job of `directories` and of what lies below them. No record raises anything.

    AimError, which names it, for a directory that is not there.
    """
    for directory in directories:
        if not directory.is_dir():
            raise AimError(f"{directory}: no such directory")
    tops = [directory.resolve() for directory in directories]
    top = Path(os.path.commonpath(tops))
    records, sweeps = _files(tops)
    overrides, problems = _listed_jobs(sweeps, top)
    jobs, unread = [], []
    for folder in sorted({*records, *overrides}, key=natural_order):
        record, status = None, NOT_RUN
        if folder in records:
            try:
                record = _checked(read_record(folder))
                status = record.status
            except AimError as error:
                unread.append(f"{_below(folder, top)}: {error}")
                status = UNREADABLE
        jobs.append(_job(folder, top, sweeps, record, status, overrides.get(folder, ())))
    if unread:
        read = f"{len(records) - len(unread)} of {len(records)} runs read"
        problems = [f"{read}; {'; '.join(unread)}", *problems]
    folders = list(dict.fromkeys(job.sweep for job in jobs))
    if len(folders) < 2 or max(len(job.folder) for job in jobs) <= LONG:
        return Runs(top, tuple(jobs), tuple(problems), {})
    numbers = {sweep: f"S{number}" for number, sweep in enumerate(folders, 1)}
    titled = (replace(job, title=f"{numbers[job.sweep]}/{job.name}") for job in jobs)
    return Runs(top, tuple(titled), tuple(problems), {n: sweep for sweep, n in numbers.items()})


def _files(tops: Iterable[Path]) -> tuple[set[Path], set[Path]]:
    """The folders with a record, and those of sweeps."""
    records, sweeps = set(), set()
    for top in tops:
        for folder, below, files in os.walk(top):
            below[:] = [name for name in below if name != SHARED_FOLDER]
            if FILE_NAME in files:
                records.add(Path(folder))
            if SWEEP_FILE in files:
                sweeps.add(Path(folder))
    return records, sweeps


def _listed_jobs(
    sweeps: Iterable[Path], top: Path
) -> tuple[dict[Path, tuple[str, ...]], list[str]]:
    """By folder the overrides of every job that a `sweep.json` lists; lines about odd ones."""
    jobs: dict[Path, tuple[str, ...]] = {}
    problems = []
    for sweep in sorted(sweeps, key=natural_order):
        listed = read_sweep(sweep)
        own = {sweep / job.name: job.overrides for job in listed.jobs} if listed else {}
        if listed is None or any(sweep not in folder.resolve().parents for folder in own):
            problems.append(
                f"{_below(sweep / SWEEP_FILE, top)} cannot be read: jobs that were never begun are "
                "not listed"
            )
        else:
            jobs |= own
    return jobs, problems


def _job(
    folder: Path,
    top: Path,
    sweeps: set[Path],
    record: RunRecord | None,
    status: str,
    overrides: tuple[str, ...],
) -> Job:
    sweep = next((above for above in folder.parents if above in sweeps), folder.parent)
    if folder == top:
        sweep = folder
    return Job(
        sweep=_below(sweep, top),
        name=_below(folder, sweep),
        title=_below(folder, top),
        folder=_below(folder, top),
        directory=folder,
        record=record,
        status=status,
        shared=(sweep if sweep in sweeps else folder) / SHARED_FOLDER,
        overrides=overrides or (record.overrides if record else ()),
    )


def _checked(record: RunRecord) -> RunRecord:
    """AimError for what no run writes though its types are right."""
    names = [model.name for model in record.models]
    roles = [model.role for model in record.models]
    merged = [model for model in record.models if model.role == "merged" and model.scores]
    benchmarks = {frozenset(model.scores) for model in (*record.members, *merged)}
    members = {model.name for model in record.members}
    keyed = any(model.keys for model in record.models)  # a merge that is only saved has none
    omega: Any = record.config.get("omega")
    odd = {
        "choices: no method": "method" not in record.choices,
        "models: two of one name": len(set(names)) < len(names),
        "models: two merged ones": roles.count("merged") > 1,
        "models: base is not the first": record.members and record.members[0].role != "base",
        "models: not all scored on the same benchmarks": len(benchmarks) > 1,
        "models: scored on what is not among the benchmarks": any(
            model.scores.keys() - record.benchmarks.keys() for model in record.models
        ),
        "models: keys of weights are missing": keyed
        and not all({"weights", "undrawn"} <= model.keys.keys() for model in record.models),
        "models: no base": record.models and not record.members,
        "population.merged: not all among the models": set(record.population.merged) - members,
        f"config.omega: {omega!r} is no number": type(omega) not in (int, float, type(None)),
    }
    for words, is_so in odd.items():
        if is_so:
            raise AimError(f"{FILE_NAME}: {words}")
    return record


def _below(path: Path, top: Path) -> str:
    """With forward slashes; `.` for `top` itself."""
    return Path(os.path.relpath(path, top)).as_posix()
