"""What a run would do, before it does it: work, downloads, disk, memory, time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from aim_exp.checkpoint.hub import bytes_to_download, dataset_refusal, parameter_counts
from aim_exp.run.plan import ModelPlan
from aim_exp.run.run import Run
from aim_exp.store.entries import Store
from aim_exp.store.keys import StageSpec
from aim_exp.store.records import find_records

GIB = 2**30
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Kind(StrEnum):
    """Work that a sweep's jobs share, or do once each."""

    TRAINING = "population trained"
    CALIBRATION = "base's activations measured"
    MEMBER = "base, experts, references scored"
    MERGE = "merged and scored"
    MERGE_ONLY = "merged, not scored"


@dataclass(frozen=True)
class Work:
    """One stage or one model's benchmarks: how many parts there are, and how many to do."""

    kind: Kind
    what: str
    key: str
    parts: int
    to_do: int


@dataclass(frozen=True)
class Shared:
    """Work of one kind in all jobs together: times needed, of these distinct, of these to do."""

    kind: Kind
    needed: int
    distinct: int
    to_do: int


@dataclass(frozen=True)
class Needs:
    """What a run takes, in bytes and seconds; None where nothing tells."""

    download: int
    """Of what is on the hub and not on disk."""
    refused: tuple[str, ...]
    """Data sets of tasks that the hub does not give, with the reason."""
    disk: int
    """For downloads and for copies: the merged model where it is kept, pickled weights converted,
    the checkpoint that another process scores.
    """
    free_disk: int
    weights: int | None
    """Of one model in memory, in the run's dtype."""
    memory: int
    """Of this machine; a GPU's is not asked for."""
    seconds: float | None
    """To score a model, as in earlier runs of the same kind."""


def work(run: Run) -> list[Work]:
    """The stages of the run in their order."""
    plan = run.plan
    found = []
    if plan.population:
        found.append(
            _stage_work(run.store, Kind.TRAINING, "the population's training", plan.population)
        )
    for stage in plan.saliencies:
        whose = "base" if stage == plan.saliency else "an expert"
        found.append(_stage_work(run.store, Kind.CALIBRATION, f"{whose}'s activations", stage))
    if run.recipe.suite.benchmarks:
        found += [_scoring(run.store, Kind.MEMBER, model) for model in plan.members]
        found += [_scoring(run.store, Kind.MERGE, plan.merged)] if plan.merged else []
    elif plan.merged:
        found.append(_stage_work(run.store, Kind.MERGE_ONLY, "the merge", plan.merged.weights))
    return found


def shared(jobs: Sequence[Sequence[Work]]) -> list[Shared]:
    """The work of all jobs by kind: the same key is the same work, done once."""
    needed = [item for items in jobs for item in items]
    distinct = {item.key: item for item in needed}.values()
    return [
        Shared(
            kind,
            needed=sum(item.kind == kind for item in needed),
            distinct=sum(item.kind == kind for item in distinct),
            to_do=sum(item.kind == kind and item.to_do > 0 for item in distinct),
        )
        for kind in Kind
        if any(item.kind == kind for item in needed)
    ]


def needs(run: Run) -> Needs:
    """Downloads, disk, memory and time of the run; asks the hub for sizes."""
    models = [*run.recipe.population.models, *([run.recipe.given] if run.recipe.given else [])]
    download = sum(bytes_to_download(model) for model in models)
    if run.plan.saliency and not run.store.has(run.plan.saliency):
        download += run.calibration.bytes_to_download()
    weights = _weights(run)
    copies = int(run.save_model and run.plan.merged is not None)
    copies += int(run.evaluator.needs_checkpoint and bool(run.recipe.suite.benchmarks))
    copies += sum(model.origin is not None and not model.path.is_dir() for model in models)
    return Needs(
        download=download,
        refused=_refused(run),
        disk=download + copies * (weights or 0),
        free_disk=shutil.disk_usage(_existing(run.store.root)).free,
        weights=weights,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        seconds=_seconds_per_model(run),
    )


def _refused(run: Run) -> tuple[str, ...]:
    from aim_exp.evaluate.check import hub_datasets

    return tuple(filter(None, map(dataset_refusal, hub_datasets(run.recipe.suite))))


def _stage_work(store: Store, kind: Kind, what: str, stage: StageSpec) -> Work:
    return Work(kind, what, stage.key, 1, int(not store.has(stage)))


def _scoring(store: Store, kind: Kind, model: ModelPlan) -> Work:
    scores = model.scores.values()
    to_do = sum(not store.has(stage) for stage in scores)
    what = f"scores of {model.name}, {len(scores)} benchmark{'s' * (len(scores) > 1)}"
    return Work(kind, what, model.responses.key, len(scores), to_do)


def _weights(run: Run) -> int | None:
    """Bytes of base in the run's dtype; None where it is still to be trained or converted."""
    counts = parameter_counts(run.recipe.population.base)
    return DTYPE_BYTES[run.recipe.dtype] * sum(counts.values()) or None


def _seconds_per_model(run: Run) -> float | None:
    """The most that a model took in earlier runs of this population and suite."""
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
    return max(taken) if taken else None


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def told(found: Needs) -> list[str]:
    """The needs in words; a shortage is marked."""
    lines = [
        f"hub       does not give {refused}; if it is not in the cache of the datasets library, "
        "set benchmarks.data_dir"
        for refused in found.refused
    ]
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
        lines.append(f"scoring   about {_duration(found.seconds)} a model, going by earlier runs")
    return lines


def _gib(size: Any) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"
