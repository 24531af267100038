"""AIM in a stream: how much of each tensor's delta stays, and what that changed."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aim_exp.aim.relaxation import AimSettings, blend, named_scaling, relaxation
from aim_exp.tensors.inputs import SPARE, TensorInputs

if TYPE_CHECKING:
    from aim_exp.aim.saliency import Saliency

RELAXED_BELOW = 0.9
"""A channel counts as pulled back noticeably when less than this share of its delta stays."""


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
            found["share_below"] = self.channels_below / self.channels
        if self.norm_before:
            found["norm"] = math.sqrt(self.norm_after / self.norm_before)
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

    def factors(self, name: str, shape: Sequence[int]) -> Tensor | None:
        """r of a tensor, float32, shaped to broadcast over it; None where AIM leaves it alone."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.settings.exclude):
            return None
        head = self.saliency.tied.get(name)
        if head is not None and self.settings.tied_head == "keep":
            return None
        source = head or name
        channels = self.saliency.channels.get(source)
        if channels is None:
            return None
        axis = self.saliency.axes[source]
        assert len(channels) == shape[axis], f"{name}: saliency of {source} does not fit"
        f = named_scaling(self.settings.scaling, self.seed, name)
        view = [1] * len(shape)
        view[axis] = -1
        return relaxation(channels, self.omega, f).view(view)


class Pull:
    """AIM's relaxation of one tensor, block by block, and what it changed."""

    def __init__(self, inputs: TensorInputs, factors: Tensor) -> None:
        self._inputs = inputs
        self._factors = factors
        self._squares = torch.zeros_like(factors, dtype=torch.float64)

    def delta(self, delta: Tensor, rows: slice) -> Tensor:
        """What is left of a difference to base, in place: exact at r = 0 and r = 1 as it is."""
        spare = self._inputs.scratch(SPARE, delta.shape)
        self._count(torch.mul(delta, delta, out=spare), rows)
        return delta.mul_(self._factors[self._channels(rows)])

    def merged(self, merged: Tensor, rows: slice) -> Tensor:
        """Merged rows relaxed, in scratch memory."""
        base = self._inputs.base_rows(rows)
        spare = self._inputs.scratch(SPARE, merged.shape)
        self._count(torch.sub(merged, base, out=spare).square_(), rows)
        return blend(base, merged, self._factors[self._channels(rows)], out=spare)

    def _channels(self, rows: slice) -> slice:
        """The channels that rows have a part in: their own along the first axis, else all."""
        return rows if self._factors.shape[0] > 1 else slice(None)

    def _count(self, squares: Tensor, rows: slice) -> None:
        channels = self._squares[self._channels(rows)]
        channels += squares.sum_to_size(channels.shape)

    def report(self) -> KindReport:
        """The counts and sums of the whole tensor."""
        r = self._factors
        return KindReport(
            relaxed_parameters=self._inputs.base.numel(),
            channels=r.numel(),
            sum_r=r.sum(dtype=torch.float64).item(),
            channels_below=int((r < RELAXED_BELOW).sum()),
            norm_before=self._squares.sum().item(),
            norm_after=(self._squares * r.double().square()).sum().item(),
        )
