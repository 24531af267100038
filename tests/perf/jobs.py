"""What the jobs of a sweep take, by part, and what they write."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

MERGING, SCORING, CALIBRATION, SAVING, REST = PARTS = (
    "merging", "scoring", "calibration", "loading and saving", "the rest",
)  # fmt: skip
WEIGHTS = {".safetensors", ".bin", ".pt"}


@dataclass(frozen=True)
class Seconds:
    """CPU seconds, those of ended child processes included, and wall seconds."""

    cpu: float
    wall: float

    @classmethod
    def now(cls) -> Seconds:
        children = os.times()
        cpu = time.process_time() + children.children_user + children.children_system
        return cls(cpu, time.monotonic())

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.cpu - other.cpu, self.wall - other.wall)

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.cpu + other.cpu, self.wall + other.wall)


NONE = Seconds(0, 0)


@dataclass
class Clock:
    """What each part has taken so far; one within another counts for itself only."""

    taken: dict[str, Seconds] = field(default_factory=lambda: dict.fromkeys(PARTS, NONE))
    times: Counter[str] = field(default_factory=Counter)
    jobs: list[dict[str, Seconds]] = field(default_factory=list)
    _part: str = REST
    _since: Seconds = field(default_factory=Seconds.now)
    _job: dict[str, Seconds] = field(default_factory=lambda: dict.fromkeys(PARTS, NONE))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        outer = self._enter(name)
        self.times[name] += 1
        try:
            yield
        finally:
            self._enter(outer)

    def end_job(self) -> None:
        self._enter(self._part)
        self.jobs.append({part: self.taken[part] - self._job[part] for part in PARTS})
        self._job = dict(self.taken)

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count calls of a function or method as `part`."""
        function = getattr(owner, name)

        @wraps(function)
        def watched(*args: Any, **settings: Any) -> Any:
            with self.part(part):
                return function(*args, **settings)

        setattr(owner, name, watched)

    def _enter(self, part: str) -> str:
        now, outer = Seconds.now(), self._part
        self.taken[outer] += now - self._since
        self._part, self._since = part, now
        return outer


@dataclass(frozen=True)
class Measured:
    """One run of one way: the seconds of each job by part, what was counted and written.

    `shared` is CPU seconds that belong to no job alone, per job: Hydra's check of all
    configurations before the first, and Weights & Biases' own process.
    """

    jobs: list[dict[str, Seconds]]
    counts: dict[str, int]
    written: dict[str, tuple[int, int]]
    """By what it is: files and bytes."""
    scores: list[dict[str, float]]
    process: Seconds
    shared: float = 0.0


def files_in(folder: Path) -> dict[str, int]:
    """Size in bytes by path."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.stat().st_size for path in found}


def sizes(files: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Files and bytes by what they hold."""
    sizes: dict[str, list[int]] = {}
    for path, size in files.items():
        sizes.setdefault(_kind(Path(path)), []).append(size)
    return {kind: (len(found), sum(found)) for kind, found in sorted(sizes.items())}


def _kind(path: Path) -> str:
    stage = path.parts[1] if path.parts[0] == "cache" else ""
    if "saliency" in path.parts:  # the cache's, and those that a sweep shares
        return "saliency"
    if stage == "locks":
        return stage
    if path.suffix in WEIGHTS:
        return "weights"
    if "wandb" in path.parts:
        return "tracker"
    if "figures" in path.parts:
        return "figures"
    return "responses and scores" if stage or path.suffix == ".jsonl" else "records and reports"
