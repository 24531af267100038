"""What a run would do, before it does it: work, downloads, disk, memory, time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aim_exp.build import Run
from aim_exp.checkpoint.identity import bytes_to_download
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import AimError
from aim_exp.records import find_records
from aim_exp.store import Store
from aim_exp.types import StageSpec

GIB = 2**30
SCORES_OF = "scores of "
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Work:
    """One stage or one model's benchmarks: how many parts there are, and how many to do."""

    what: str
    key: str
    parts: int
    to_do: int


@dataclass(frozen=True)
class Needs:
    """What a run takes, in bytes and seconds; None where nothing tells."""

    download: int
    """Of hub models that are not on disk."""
    disk: int
    """For downloads, and for the merged model where it is kept."""
    free_disk: int
    weights: int | None
    """Of one model in memory, in the run's dtype."""
    memory: int
    """Of this machine; a GPU's is not asked for."""
    seconds: float | None
    """For what is to do, if models score as fast as in earlier runs of the same kind."""


def work(run: Run) -> list[Work]:
    """The stages of the run in their order."""
    plan = run.plan
    found = []
    if plan.population:
        found.append(_work(run.store, "the population's training", plan.population))
    if plan.saliency:
        found.append(_work(run.store, "base's activations", plan.saliency))
    for model in (*plan.members, *([plan.merged] if plan.merged else [])):
        scores = list(model.scores.values())
        to_do = sum(not run.store.has(stage) for stage in scores)
        what = f"{SCORES_OF}{model.name}, {len(scores)} benchmark{'s' * (len(scores) > 1)}"
        found += [Work(what, model.responses.key, len(scores), to_do)] if scores else []
    return found


def needs(run: Run) -> Needs:
    """Downloads, disk, memory and time of the run; asks the hub for sizes."""
    models = [*run.recipe.population.models, *([run.recipe.given] if run.recipe.given else [])]
    download = sum(bytes_to_download(model) for model in models)
    weights = _weights(run)
    saved = weights or 0 if run.save_model and run.plan.merged else 0
    return Needs(
        download=download,
        disk=download + saved,
        free_disk=shutil.disk_usage(_existing(run.store.root)).free,
        weights=weights,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        seconds=_seconds(run),
    )


def _work(store: Store, what: str, stage: StageSpec) -> Work:
    return Work(what, stage.key, 1, int(not store.has(stage)))


def _weights(run: Run) -> int | None:
    base = run.recipe.population.base
    try:
        tensors = Checkpoint(base.path, base.name).tensors.values()
    except AimError:  # not made or fetched yet
        return None
    return DTYPE_BYTES[run.recipe.dtype] * sum(_elements(info.shape) for info in tensors)


def _elements(shape: Iterable[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _seconds(run: Run) -> float | None:
    """Models to score times the slowest that earlier runs of this population and suite took."""
    outputs = run.store.root.parent
    if not outputs.is_dir():
        return None
    folders = [path for path in outputs.iterdir() if path.is_dir() and path != run.store.root]
    taken = [
        seconds
        for _, record in find_records(*folders)
        if (record.population.get("name"), record.suite)
        == (run.recipe.population.name, run.recipe.suite.name)
        for stage, seconds in record.timings.items()
        if stage.startswith("score ")
    ]
    to_score = sum(1 for item in work(run) if item.what.startswith(SCORES_OF) and item.to_do)
    return max(taken) * to_score if taken else None


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def told(found: Needs) -> list[str]:
    """The needs in words; a shortage is marked."""
    lines = []
    if found.download:
        lines.append(f"download  {_gib(found.download)}")
    if found.disk:
        short = "  NOT ENOUGH" if found.disk > found.free_disk else ""
        lines.append(f"disk      {_gib(found.disk)} of {_gib(found.free_disk)} free{short}")
    if found.weights:
        lines.append(
            f"memory    {_gib(found.weights)} for one model's weights; this machine has "
            f"{_gib(found.memory)}"
        )
    if found.seconds is not None:
        lines.append(f"scoring   about {_duration(found.seconds)}, going by earlier runs")
    return lines


def _gib(size: Any) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"
