"""What stages take on the disk and in memory: told by a plan, checked before they begin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aim_exp.checkpoint.hub import parameter_counts
from aim_exp.console import console, print_warning, size_text
from aim_exp.errors import AimError
from aim_exp.store.files import RUN_KEYS, check_free, existing
from aim_exp.store.stage_spec import StageSpec
from aim_exp.types import ModelRef

if TYPE_CHECKING:
    from aim_exp.run.keys import ModelPlan
    from aim_exp.run.plan import Stage
    from aim_exp.run.run import Run

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LEAST = 16 * 2**20
"""Bytes that are to be free where something is made at all: for whatever is small."""
MOST_NAMED = 3
CGROUPS = Path("/sys/fs/cgroup")
PAGE = os.sysconf("SC_PAGE_SIZE")
LESS_DTYPE = "a dtype of fewer bytes takes less"
LESS_LAYERS = "calibration.offload=layers takes a layer of it at a time"


@dataclass(frozen=True)
class DiskRoom:
    """Bytes of what is written in a folder, the value of `key`.

    `passing` goes again before the next of its kind.
    """

    what: str
    size: int
    folder: Path
    key: str = "cache_dir"
    passing: bool = False


@dataclass(frozen=True)
class MemoryRoom:
    """Bytes of what is in the device's memory at least, and what would make them fewer."""

    what: str
    size: int
    less: str = LESS_DTYPE


Room = DiskRoom | MemoryRoom


def weights(model: ModelRef, dtype: str) -> int:
    """Bytes of a model in a dtype; 0 where it is still to be trained or converted."""
    return DTYPE_BYTES[dtype] * sum(parameter_counts(model).values())


def of_training(run: Run) -> Iterator[Room]:
    """The population's, where it is trained here."""
    stage = run.source.recipe(run.recipe.population)
    if stage and not run.store.has(stage):
        disk, memory = run.source.training_bytes(run.recipe.population)
        yield DiskRoom("the population's training", disk, run.store.root)
        yield MemoryRoom("the population's training", memory)


def of_scoring(run: Run, plan: ModelPlan, model: ModelRef) -> Iterator[Room]:
    """A model like `model`, in memory, or in a checkpoint for another process.

    How that one shares it out over devices is its own.
    """
    if all(map(run.store.has, plan.scores.values())):
        return
    size = weights(model, run.recipe.dtype)
    if not run.evaluator.needs_checkpoint:
        yield MemoryRoom(plan.name, size)
    else:
        what = f"the checkpoint of {plan.name} for evaluator={run.choices['evaluator']}"
        yield DiskRoom(what, size, run.store.root, passing=True)


def of_measuring(
    run: Run, stages: Sequence[StageSpec], models: Sequence[ModelRef], *, gradients: bool = False
) -> Iterator[Room]:
    """Models that read texts; their gradients are kept in float32."""
    for stage, model in zip(stages, models, strict=False):
        if run.store.has(stage):
            continue
        size, kept = weights(model, run.recipe.dtype), weights(model, "float32")
        if gradients:
            yield MemoryRoom(f"{model.name} with its gradients", size + kept)
            yield DiskRoom(f"the gradients of {model.name}", kept, run.store.root)
        elif run.calibration.offload != "layers":
            yield MemoryRoom(model.name, size, LESS_LAYERS)


def of_groundwork(run: Run, stage: StageSpec) -> Iterator[Room]:
    """The direction of a whole merge, where the method keeps it."""
    if run.recipe.method.keeps_direction and not run.store.has(stage):
        size = weights(run.recipe.population.base, "float32")
        yield DiskRoom("the method's groundwork", size, run.store.root)


def of_merge(run: Run, plan: ModelPlan | None, directory: Path) -> Iterator[Room]:
    """The merged model where it is kept, and to be scored; a merge itself is a stream."""
    base = run.recipe.population.base
    if run.save_model:
        size = weights(base, run.target_dtype or run.recipe.dtype)
        yield DiskRoom("the merged model", size, directory, RUN_KEYS)
    if plan and plan.scores:
        yield from of_scoring(run, plan, base)


def on_disk(rooms: Iterable[Room]) -> int:
    """Bytes that all of them take at most at once."""
    disk = [room for room in rooms if isinstance(room, DiskRoom)]
    passing = max((room.size for room in disk if room.passing), default=0)
    return passing + sum(room.size for room in disk if not room.passing)


def check_room(run: Run, stages: Sequence[Stage], directory: Path, device: str) -> None:
    """StorageError, or AimError of memory, if what is to do of these stages has no room.

    What other processes have taken of the memory, they may give back: a warning.
    """
    rooms = [room for stage in stages for room in stage.room(run, directory)]
    if any(not run.store.has(entry) for stage in stages for entry in stage.entries):
        rooms.append(DiskRoom("results", LEAST, run.store.root))
    by_disk: dict[int, list[DiskRoom]] = {}
    for room in rooms:
        if isinstance(room, DiskRoom):
            by_disk.setdefault(existing(room.folder).stat().st_dev, []).append(room)
    for there in by_disk.values():
        there.sort(key=lambda room: room.size, reverse=True)
        what = ", ".join(room.what for room in there[:MOST_NAMED])
        check_free(what, on_disk(there), there[0].folder, there[0].key)
    largest = max(
        (room for room in rooms if isinstance(room, MemoryRoom)),
        key=lambda room: room.size,
        default=None,
    )
    if largest is None:
        return
    total, available = memory(device)
    takes = f"dtype={run.recipe.dtype}: {largest.what} takes {size_text(largest.size)} of memory"
    if largest.size > total:
        raise AimError(f"{takes}, and device={device} has {size_text(total)}; {largest.less}")
    if largest.size > available:
        free = f"{size_text(available)} of {size_text(total)} are free"
        print_warning(console, f"{takes}, and of device={device} {free}; {largest.less}")


def memory(device: str = "cpu") -> tuple[int, int]:
    """Bytes that the device has, as far as this process may take them, and can take now."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return total, free + torch.cuda.memory_reserved(device)
    total = min([PAGE * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits()])
    try:
        about = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        own = PAGE * int(Path("/proc/self/statm").read_text().split()[1])
        return total, min(total, 1024 * int(about["MemAvailable"].split()[0]) + own)
    except (OSError, ValueError, KeyError):  # not Linux
        return total, total


def _cgroup_limits() -> Iterator[int]:
    """Those of this process's group and of all above it, where there are any."""
    try:
        (own,) = (
            line[4:]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::/")
        )
    except (OSError, ValueError):
        return
    for folder in (CGROUPS / own, *(CGROUPS / own).parents):
        if folder.is_relative_to(CGROUPS):
            try:
                yield int((folder / "memory.max").read_text())
            except (OSError, ValueError):  # none, or "max"
                continue
