"""Weights flow once: checkpoints, merge method, AIM relaxation, sink; block by block."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from aim_exp.aim import AimSettings, blend, named_scaling, relaxation
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import CheckpointError
from aim_exp.merge.blocks import row_blocks
from aim_exp.merge.method import Kernel, MergeMethod, TensorInputs, finite
from aim_exp.saliency import Saliency

HEAD = "lm_head.weight"
RELAXED_BELOW = 0.9
"""A channel counts as pulled back noticeably when less than this share of its delta stays."""


class Sink(Protocol):
    """Where weights go: a checkpoint writer, a live model, or nowhere."""

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Take rows of a tensor, in the dtype it will have."""
        ...


class Discard:
    """A sink for weights that only have to be gone through."""

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Nothing."""


@dataclass
class KindReport:
    """How AIM changed one kind of module (`q_proj`, `lm_head`, ...); channels over its tensors."""

    parameters: int = 0
    relaxed_parameters: int = 0
    channels: int = 0
    sum_r: float = 0.0
    channels_below: int = 0
    norm_before: float = 0.0
    norm_after: float = 0.0

    def summary(self) -> dict[str, float]:
        """The numbers for the record; norms as the ratio after / before."""
        found: dict[str, float] = {
            "parameters": self.parameters,
            "relaxed_parameters": self.relaxed_parameters,
        }
        if self.channels:
            found["mean_r"] = self.sum_r / self.channels
            found[f"share_below_{RELAXED_BELOW}"] = self.channels_below / self.channels
        if self.norm_before:
            found["delta_kept"] = math.sqrt(self.norm_after / self.norm_before)
        return found

    def add(self, other: KindReport) -> None:
        """Add another report's counts and sums."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class RelaxationReport:
    """A `KindReport` for each kind of module."""

    kinds: dict[str, KindReport] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per kind and `all`, plain numbers."""
        total = KindReport()
        for kind in self.kinds.values():
            total.add(kind)
        kinds = {"all": total, **dict(sorted(self.kinds.items()))}
        return {name: report.summary() for name, report in kinds.items()}


@dataclass(frozen=True)
class Relaxation:
    """AIM for a stream: which tensors are relaxed, and by how much in each channel."""

    saliency: Saliency
    omega: float
    settings: AimSettings
    seed: int

    def factors(self, name: str, shape: Sequence[int], head: str | None) -> Tensor | None:
        """r of a tensor, float32, shaped to broadcast over it; None where AIM leaves it alone.

        `head` is the saliency's name for the tensor if it is also the tied output head.
        """
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.settings.exclude):
            return None
        source = name
        if head is not None and self.settings.tied_head == "relax":
            source = head
        channels = self.saliency.channels.get(source)
        if channels is None:
            return None
        axis = self.saliency.axes[source]
        assert len(channels) == shape[axis], f"{name}: saliency of {source} does not fit"
        f = named_scaling(self.settings.scaling, self.seed, name)
        view = [1] * len(shape)
        view[axis] = -1
        return relaxation(channels, self.omega, f).view(view)


def stream_checkpoint(checkpoint: Checkpoint, sink: Sink) -> None:
    """A checkpoint's weights as they are; NonFiniteError for NaN or infinity."""
    for name in checkpoint.tensors:
        tensor = checkpoint.tensor(name)
        for rows in row_blocks(tensor.shape):
            sink.write(name, rows, finite(tensor[rows], checkpoint.label, name))


def stream_merge(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    method: MergeMethod,
    sink: Sink,
    *,
    seed: int,
    dtype: str | None = None,
    relax: Relaxation | None = None,
) -> RelaxationReport:
    """Merge `experts` by `method`, relax towards base, and hand the blocks to `sink`.

    The tensors are base's. Arithmetic in float32, rounded once to `dtype` (None: the dtype
    of each tensor in base). Tensors of integers are base's. Raises NonFiniteError for NaN
    or infinity in any model or in the result.
    """
    report = RelaxationReport()
    for name, info in base.tensors.items():
        inputs = TensorInputs(
            name=name,
            base=base.tensor(name),
            experts=tuple(expert.tensor(name) for expert in experts),
            expert_names=tuple(expert.label for expert in experts),
            seed=seed,
        )
        if not info.is_floating:
            _copy_integers(inputs, sink)
            continue
        kernel = method.prepare(inputs)
        kind = report.kinds.setdefault(_kind(name), KindReport())
        kind.parameters += inputs.base.numel()
        factors = relax and relax.factors(name, inputs.base.shape, _tied_head(base, name))
        target = getattr(torch, dtype or info.dtype)
        _merge_tensor(inputs, kernel, factors, kind, target, sink)
    return report


def _merge_tensor(
    inputs: TensorInputs,
    kernel: Kernel,
    factors: Tensor | None,
    kind: KindReport,
    dtype: torch.dtype,
    sink: Sink,
) -> None:
    if factors is not None:
        kind.relaxed_parameters += inputs.base.numel()
        kind.channels += factors.numel()
        kind.sum_r += factors.sum(dtype=torch.float64).item()
        kind.channels_below += int((factors < RELAXED_BELOW).sum())
    for rows in row_blocks(inputs.base.shape):
        block = kernel(rows)
        if factors is not None:
            start = inputs.base_rows(rows)
            r = factors[rows] if factors.shape[0] > 1 else factors
            squares = (block - start).square_()
            kind.norm_before += squares.sum(dtype=torch.float64).item()
            kind.norm_after += squares.mul_(r.square()).sum(dtype=torch.float64).item()
            block = blend(start, block, r)
        sink.write(inputs.name, rows, finite(block.to(dtype), "merged model", inputs.name))


def _copy_integers(inputs: TensorInputs, sink: Sink) -> None:
    for name, tensor in zip(inputs.expert_names, inputs.experts, strict=True):
        if not torch.equal(tensor, inputs.base):
            raise CheckpointError(
                f"{name}: tensor {inputs.name} holds integers that differ from base's; "
                "they cannot be merged"
            )
    sink.write(inputs.name, slice(0, len(inputs.base)), inputs.base)


def _kind(name: str) -> str:
    """The kind of module that a tensor belongs to: `model.layers.3.mlp.up_proj.weight`, up_proj."""
    parts = [part for part in name.split(".") if not part.isdigit()]
    return parts[-2] if len(parts) > 1 else parts[-1]


def _tied_head(base: Checkpoint, name: str) -> str | None:
    """The saliency's name for the input embedding where it is the output head too."""
    if name.endswith(("embed_tokens.weight", "wte.weight")) and HEAD not in base.tensors:
        return HEAD
    return None
