"""Omega and lambda chosen on one half of the items and reported on the other.

The best row of a table was chosen on the items that it is reported on, so it is partly luck.
Here every second item of each benchmark chooses, and the others report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

from aim_exp.report.results import Job, Results
from aim_exp.report.settings import Settings

CHOSEN = ("omega", "method.scale")
"""The settings that are tuned: what else differs makes another group of candidates."""


@dataclass(frozen=True)
class Choice:
    """Among `candidates` runs that differ in omega and lambda only; averages in [0, 1]."""

    best_on_all: Job
    """The best on all items: chosen on its own test items."""
    average_on_all: float
    chosen: Job
    """The best on the even items."""
    average_when_chosen: float
    average_reported: float
    """Of `chosen`, on the odd items, which had no say."""
    candidates: int


def choices(results: Results) -> list[Choice]:
    """A choice for each group of several candidates whose per-item results are at hand."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in results.scored:
        if _items_at_hand(job):
            groups.setdefault(_group(results, job.settings), []).append(job)
    return [_choose(jobs) for jobs in groups.values() if len(jobs) > 1]


def _group(results: Results, settings: Settings) -> tuple[str, ...]:
    return tuple(settings.get(name, "") for name in results.varying if name not in CHOSEN)


def _choose(jobs: Sequence[Job]) -> Choice:
    def best(average: Callable[[Job], float]) -> Job:
        return max(jobs, key=average)

    best_on_all, chosen = best(lambda job: _average(job, None)), best(lambda job: _average(job, 0))
    return Choice(
        best_on_all=best_on_all,
        average_on_all=_average(best_on_all, None),
        chosen=chosen,
        average_when_chosen=_average(chosen, 0),
        average_reported=_average(chosen, 1),
        candidates=len(jobs),
    )


def _average(job: Job, half: int | None) -> float:
    """Over the benchmarks, on the items of one half (None: all)."""
    return fmean(fmean(_kept(values, half)) for values in _items(job.directory, _sources(job)))


def _kept(values: Sequence[tuple[int, float]], half: int | None) -> list[float]:
    return [value for item, value in values if half is None or item % 2 == half]


def _sources(job: Job) -> tuple[tuple[str, str], ...]:
    """Per benchmark the file of its items and the key of its metric."""
    files = job.record.items.get("merged", {})
    return tuple(
        (files[name], job.record.benchmarks[name]["metric"]) for name in job.record.scores or {}
    )


def _items_at_hand(job: Job) -> bool:
    """Whether both halves of every benchmark can be read: the cache may be gone."""
    if not set(job.record.scores or {}) <= set(job.record.items.get("merged", {})):
        return False
    sources = _sources(job)
    if not all(Path(file).is_file() for file, _ in sources):
        return False
    return all(_kept(values, half) for values in _items(job.directory, sources) for half in (0, 1))


@cache
def _items(directory: Path, sources: tuple[tuple[str, str], ...]) -> list[list[tuple[int, float]]]:
    """Per benchmark the number and the value of each item."""
    return [_values(Path(file), *metric.split(",", 1)) for file, metric in sources]


def _values(file: Path, metric: str, chosen_filter: str) -> list[tuple[int, float]]:
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        (sample["doc_id"], float(sample["metrics"][metric]))
        for sample in samples
        if sample["filter"] == chosen_filter
    ]
