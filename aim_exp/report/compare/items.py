"""What a model got of each item of a benchmark, read back from the store."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from aim_exp.errors import AimError
from aim_exp.statistics import Floats, Stratum
from aim_exp.store.records import RunRecord

MERGED = "merged"
ROUNDING = 1e-9
"""A score and the mean of its items may differ by this."""


@dataclass(frozen=True)
class Source:
    """A model on a benchmark: the file of its items, the metric's key, the score as recorded."""

    file: Path
    metric: str
    score: float


@dataclass(frozen=True)
class Items:
    """A model's items: `gained` of `possible`, both [items, parts], sorted by `ids`.

    An accuracy has one part, with 1 to gain. IFEval's instructions are several to a prompt,
    and the mean of its four metrics has four parts. `weights` are those of the tasks of a
    group (one, for a task by itself) in the score.
    """

    ids: tuple[tuple[str, int, str], ...]
    """Task, number in it, and the expected answer: the same items have the same ones."""
    gained: Floats
    possible: Floats
    weights: Mapping[str, float]

    @property
    def score(self) -> float:
        """The metric's value in [0, 1]."""
        return sum(part.weight * float(part.scores[0]) for part in strata([self]))

    def half(self, parity: int) -> Items:
        """The items with even (0) or odd (1) numbers."""
        kept = [index for index, (_, number, _) in enumerate(self.ids) if number % 2 == parity]
        ids = tuple(self.ids[index] for index in kept)
        return replace(self, ids=ids, gained=self.gained[kept], possible=self.possible[kept])

    @property
    def tasks(self) -> list[str]:
        """The task of each item."""
        return [task for task, _, _ in self.ids]

    @property
    def are_right_or_wrong(self) -> bool:
        """Whether the score is the share of items that are right, each counting the same."""
        plain = self.possible.shape[1] == 1 and bool((self.possible == 1).all())
        by_size = _by_size(self.tasks)
        even = all(abs(weight - by_size[task]) < ROUNDING for task, weight in self.weights.items())
        return plain and even and bool(np.isin(self.gained, (0, 1)).all())


def sources(record: RunRecord, model: str) -> dict[str, Source]:
    """By benchmark, for the merged model, a member of the population or a reference."""
    beside = {**(record.reference_scores or {}), **(record.population_scores or {})}
    scores = (record.scores if model == MERGED else beside.get(model)) or {}
    files = record.items.get(model, {})
    metrics = {name: about.get("metric", "") for name, about in record.benchmarks.items()}
    return {
        name: Source(Path(files.get(name, "")), metrics.get(name, ""), score)
        for name, score in scores.items()
    }


@cache
def digest(file: Path) -> str | None:
    """Equal for files with the same answers to the same items; None if it is gone."""
    try:
        with file.open("rb") as lines:
            return hashlib.file_digest(lines, "sha256").hexdigest()
    except OSError:
        return None


@cache
def read_items(source: Source) -> Items:
    """The items of the metric's own filter.

    AimError where they are gone (the cache may be deleted any time), or where the score is no
    mean of them.
    """
    metric, _, chosen_filter = source.metric.partition(",")
    rows = sorted(_rows(source, metric, chosen_filter), key=lambda row: row[0])
    if not rows:
        raise AimError(f"no items with the filter {chosen_filter}")
    tasks = [task for (task, _, _), _, _ in rows]
    gained, possible = (np.array([row[column] for row in rows], dtype=float) for column in (1, 2))
    for weights in (_by_size(tasks), _equal(tasks)):
        items = Items(tuple(row[0] for row in rows), gained, possible, weights)
        if abs(items.score - source.score) < ROUNDING:
            return items
    raise AimError("the score is no mean over items")


def strata(models: Sequence[Items]) -> list[Stratum]:
    """The same items of several models, a stratum per task. AimError if they are not the same."""
    first = models[0]
    if any(items.ids != first.ids for items in models):
        raise AimError("not the same items")
    gained = np.stack([items.gained for items in models], axis=1)
    tasks = np.array(first.tasks)
    return [
        Stratum(gained[tasks == task], first.possible[tasks == task], weight)
        for task, weight in first.weights.items()
    ]


def _rows(
    source: Source, metric: str, chosen_filter: str
) -> Iterator[tuple[tuple[str, int, str], list[float], list[int]]]:
    try:
        with source.file.open(encoding="utf-8") as lines:
            for line in lines:
                sample = json.loads(line)
                if sample["filter"] == chosen_filter:
                    gained, possible = _parts(sample["metrics"][metric])
                    target = json.dumps(sample.get("target"))
                    yield (sample.get("task", ""), sample["doc_id"], target), gained, possible
    except OSError as error:
        raise AimError("the results by item are no longer in the cache") from error
    except (ValueError, TypeError, KeyError) as error:
        raise AimError("the metric is no number per item") from error


def _parts(value: Any) -> tuple[list[float], list[int]]:
    """A list's score is the mean of its entries over all items, a mapping's that of its values."""
    if isinstance(value, Mapping):
        pairs = [_parts(value[name]) for name in sorted(value)]
        return [g for gained, _ in pairs for g in gained], [p for _, poss in pairs for p in poss]
    if isinstance(value, list):
        return [float(sum(value))], [len(value)]
    return [float(value)], [1]


def _by_size(tasks: Sequence[str]) -> dict[str, float]:
    return {task: count / len(tasks) for task, count in Counter(tasks).items()}


def _equal(tasks: Sequence[str]) -> dict[str, float]:
    names = dict.fromkeys(tasks)
    return dict.fromkeys(names, 1 / len(names))
