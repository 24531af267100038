"""Pairs of runs that differ in chosen settings only: a run and its twin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aim_exp.errors import AimError
from aim_exp.keys import canonical_json
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import Settings, short_name

PLAIN = {"omega": "null"}
"""The twin that a run with AIM is compared with, unless another one is asked for."""


@dataclass(frozen=True)
class Twins:
    """Runs with their twins, in the order of the runs; those that have none; repetitions."""

    against: Settings
    pairs: tuple[tuple[Job, Job], ...]
    alone: tuple[Job, ...]
    repeated: tuple[Job, ...]
    """The same model on the same items as an earlier run: it counts once."""


def find_twins(results: Results, against: Settings = PLAIN) -> Twins:
    """For each scored run without the settings `against`, the one with them and else the same.

    The same are the settings that both have: a plain merge has none of AIM's, and other
    methods have other fields. The same are also the models and how they are asked.
    """
    scored, repeated = _once(results.scored)
    twins = [job for job in scored if _has(job, against)]
    pairs, alone = [], []
    for job in scored:
        if not _has(job, against):
            twin = next((twin for twin in twins if _alike(job, twin, against)), None)
            if twin:
                pairs.append((job, twin))
            else:
                alone.append(job)
    return Twins(against, tuple(pairs), tuple(alone), tuple(repeated))


def parse_against(results: Results, texts: Sequence[str]) -> dict[str, str]:
    """`omega=null`, `scaling=uniform` as settings by their full names; AimError if not here."""
    against = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise AimError(f"--against {text}: must be SETTING=VALUE, as in omega=null")
        (full,) = parse_names(results, "--against", [name])
        values = list(dict.fromkeys(j.settings[full] for j in results.scored if full in j.settings))
        against[full] = next((known for known in values if _equal(known, value)), "")
        if not against[full]:
            there_are = ", ".join(values) or "none"
            raise AimError(f"--against {text}: no scored run has it; there are: {there_are}")
    return against


def parse_names(results: Results, option: str, names: Iterable[str]) -> tuple[str, ...]:
    """Settings by their full names; a short one (`density`) will do. AimError if not here."""
    known = {name: None for job in results.scored for name in job.settings}
    full = {short_name(name): name for name in known} | {name: name for name in known}
    found = []
    for name in names:
        if name not in full:
            varying = ", ".join(map(short_name, results.varying))
            raise AimError(
                f"{option} {name}: the runs have no such setting; those that vary are: {varying}"
            )
        found.append(full[name])
    return tuple(found)


def _once(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """The first run of each model, and the others: the store names its items by content."""
    first: dict[str, Job] = {}
    for job in jobs:
        items = job.record.items.get("merged")
        first.setdefault(canonical_json(items) if items else str(job.directory), job)
    kept = list(first.values())
    return kept, [job for job in jobs if job not in kept]


def _has(job: Job, against: Settings) -> bool:
    return all(job.settings.get(name) == value for name, value in against.items())


def _alike(job: Job, twin: Job, against: Settings) -> bool:
    """Whether they differ in nothing but `against`, and what belongs to it (`method.density`)."""
    one, other = _circumstances(job), _circumstances(twin)
    left_out = tuple(f"{name}." for name in against)
    shared = [
        name
        for name in one.keys() & other.keys()
        if name not in against and not name.startswith(left_out)
    ]
    return all(one[name] == other[name] for name in shared)


def _circumstances(job: Job) -> dict[str, str]:
    """The settings, and what they do not tell: which models, and how they are asked."""
    record = job.record
    found = {**job.settings}
    if models := record.population.get("models"):
        found["population.models"] = canonical_json(models)
    protocols = {name: about.get("protocol") for name, about in record.benchmarks.items()}
    if any(protocols.values()):
        found["benchmarks.protocol"] = canonical_json(protocols)
    return found


def _equal(known: str, value: str) -> bool:
    try:
        return float(known) == float(value)
    except ValueError:
        return known == value
