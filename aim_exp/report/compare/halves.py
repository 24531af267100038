"""Omega and lambda chosen on one half of the items and reported on the other.

The best row of a table was chosen on the items that it is reported on, so it is partly luck.
Here every second item of each benchmark chooses, and the others report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from aim_exp.errors import AimError
from aim_exp.report.compare.items import MERGED, Items, read_items, sources
from aim_exp.report.repeats import draws
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import Settings
from aim_exp.report.studies import studies, study_marks

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
    study: str
    """`[2]`, its number; empty where there is one."""

    @property
    def name(self) -> str:
        """What was chosen from: `ties`, `ties [2]`."""
        return f"{self.chosen.record.method} {self.study}".rstrip()


def choices(results: Results) -> list[Choice]:
    """A choice for each group of several candidates whose per-item results are at hand."""
    groups: dict[tuple[int, tuple[str, ...]], list[Job]] = {}
    for study in studies(results):
        for job in filter(_items_at_hand, draws(study.scored)):
            groups.setdefault((study.number, _group(results, job.settings)), []).append(job)
    marks = study_marks(results)
    return [_choose(jobs, marks) for jobs in groups.values() if len(jobs) > 1]


def choice_sentences(results: Results) -> list[str]:
    """What each choice says, in words."""
    return [
        f"Of {choice.candidates} {choice.name} runs the best, "
        f"{results.label(choice.best_on_all)} with {100 * choice.average_on_all:.1f}, was chosen "
        "on its own test items, which is partly luck. Chosen on every second item it is "
        f"{results.label(choice.chosen)}, with {100 * choice.average_reported:.1f} on the others: "
        "the number to quote."
        for choice in choices(results)
    ]


def _group(results: Results, settings: Settings) -> tuple[str, ...]:
    return tuple(settings.get(name, "") for name in results.varying if name not in CHOSEN)


def _choose(jobs: Sequence[Job], marks: Mapping[Path, str]) -> Choice:
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
        study=marks.get(chosen.directory, ""),
    )


def _average(job: Job, half: int | None) -> float:
    """Over the benchmarks, on the items of one half (None: all)."""
    kept = (items if half is None else items.half(half) for items in _items(job))
    return fmean(items.score for items in kept)


def _items(job: Job) -> list[Items]:
    return [read_items(source) for source in sources(job.record, MERGED).values()]


def _items_at_hand(job: Job) -> bool:
    """Whether both halves of every benchmark can be read: the cache may be gone."""
    try:
        every = _items(job)
    except AimError:
        return False
    return all(
        set(items.half(half).tasks) == set(items.tasks) for items in every for half in (0, 1)
    )
