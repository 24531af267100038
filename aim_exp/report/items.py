"""What a model got of each item of a benchmark, read from the files that a record names."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from aim_exp.errors import AimError
from aim_exp.statistics import Floats, Stratum
from aim_exp.store.run_record import ScoreRecord

DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zlib.error)
"""What reading a file of items may raise that no run wrote so."""
ROUNDING = 1e-9
"""A score and the mean of its items may differ by this."""
HELD = 512
"""Files whose items are kept in memory, as numbers: those of members, and of the latest merges."""


@dataclass(frozen=True)
class Source:
    """A model on a benchmark: the file of its items, the metric's key, the score as recorded."""

    file: str
    metric: str
    score: float
    ends: tuple[float, float] = (0.0, 1.0)
    """Values of the metric that are the scores 0 and 1."""

    @staticmethod
    def of(score: ScoreRecord, directory: Path) -> Source:
        """`directory`: that of the run, now."""
        file = os.path.normpath(os.path.join(directory, score.items))
        return Source(file, score.metric, score.value, score.ends)

    @cached_property
    def digest(self) -> str | None:
        """Equal for files with the same content; None if it is gone."""
        try:
            status = os.stat(self.file)
            return _digest(self.file, status.st_size, status.st_mtime_ns)
        except OSError:
            return None

    @cached_property
    def evidence(self) -> str:
        """Equal for the same answers to the same items by the same metric; unique if it is gone."""
        return f"{self.measure} {self.digest or self.file}"

    @property
    def is_there(self) -> bool:
        return self.digest is not None

    def lines(self) -> list[tuple[dict[str, Any], Any]]:
        """Those of the metric's own filter, as `evaluate.results` explains them, with its value.

        AimError where the file is gone or damaged.
        """
        metric, _, chosen_filter = self.metric.partition(",")
        try:
            with gzip.open(self.file, "rt", encoding="utf-8") as text:
                own = [line for line in map(json.loads, text) if line["filter"] == chosen_filter]
            return [(line, line["metrics"].get(metric)) for line in own]
        except FileNotFoundError as error:
            raise AimError("the results by item are gone") from error
        except DAMAGED as error:
            raise AimError("the results by item cannot be read") from error

    @property
    def measure(self) -> str:
        worst, best = self.ends
        return f"{self.metric} {worst:g} to {best:g}"


@dataclass(frozen=True, eq=False)
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
        """About half of the items, the same ones for every model: by a hash of each (0 or 1)."""
        hashes = (hashlib.sha256(repr(item).encode()).digest()[0] for item in self.ids)
        kept = [index for index, value in enumerate(hashes) if value % 2 == parity]
        ids = tuple(self.ids[index] for index in kept)
        return replace(self, ids=ids, gained=self.gained[kept], possible=self.possible[kept])

    @property
    def tasks(self) -> list[str]:
        return [task for task, _, _ in self.ids]

    @property
    def are_right_or_wrong(self) -> bool:
        """Whether the score is the share of items that are right, each counting the same."""
        plain = self.possible.shape[1] == 1 and bool((self.possible == 1).all())
        by_size = _by_size(self.tasks)
        even = all(abs(weight - by_size[task]) < ROUNDING for task, weight in self.weights.items())
        return plain and even and bool(np.isin(self.gained, (0, 1)).all())


@lru_cache(maxsize=1 << 16)
def _digest(file: str, size: int, mtime_ns: int) -> str:
    """Of the file as it is at that time."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_items(source: Source) -> Items:
    """The items of the metric's own filter.

    AimError where they are gone, or where the score is no mean of them.
    """
    return _read_items(source, source.evidence)


@lru_cache(maxsize=HELD)
def _read_items(source: Source, evidence: str) -> Items:
    """Once for the same content."""
    rows = sorted(_rows(source), key=lambda row: row[0])
    if not rows:
        raise AimError(f"no items with the filter {source.metric.partition(',')[2]}")
    tasks = [task for (task, _, _), _, _ in rows]
    values, possible = (np.array([row[column] for row in rows], dtype=float) for column in (1, 2))
    gained = on_scale(values, possible, source.ends)
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


def _rows(source: Source) -> Iterator[tuple[tuple[str, int, str], list[float], list[int]]]:
    for line, value in source.lines():
        try:
            target = json.dumps(line.get("target"))
            yield (str(line["task"]), int(line["doc_id"]), target), *parts(value)
        except (ValueError, TypeError, KeyError) as error:
            raise AimError("the metric is no number per item") from error


def parts(value: Any) -> tuple[list[float], list[int]]:
    """What an item gained, and could have.

    A list's score is the mean of its entries over all items, a mapping's that of its values.
    """
    if isinstance(value, Mapping):
        pairs = [parts(value[name]) for name in sorted(value)]
        return [g for gained, _ in pairs for g in gained], [p for _, poss in pairs for p in poss]
    if isinstance(value, list):
        return [float(sum(value))], [len(value)]
    return [float(value)], [1]


def on_scale(values: Floats, possible: Floats, ends: tuple[float, float]) -> Floats:
    """What was gained of what was possible, by the scale of the benchmark's score."""
    worst, best = ends
    return (values - worst * possible) / (best - worst)


def _by_size(tasks: Sequence[str]) -> dict[str, float]:
    return {task: count / len(tasks) for task, count in Counter(tasks).items()}


def _equal(tasks: Sequence[str]) -> dict[str, float]:
    names = dict.fromkeys(tasks)
    return dict.fromkeys(names, 1 / len(names))
