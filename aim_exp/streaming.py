"""Weights flow once: checkpoints, merge method, AIM relaxation, sink; block by block."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from aim_exp.aim import AimSettings, blend, named_scaling, relaxation
from aim_exp.checkpoint.names import kind_of
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.uploads import Load, Uploads
from aim_exp.console import Advance
from aim_exp.errors import CheckpointError
from aim_exp.merge.blocks import row_blocks
from aim_exp.merge.method import SPARE, MergeMethod, TensorInputs, all_finite, finite
from aim_exp.merge.scratch import Scratch

if TYPE_CHECKING:
    from aim_exp.saliency import Saliency

MOST_THREADS = 4
"""More only wait for each other: between a block's operations, a few microseconds each, a
thread holds Python's lock. On two processors 8 threads took longer than one (TIES, DARE)."""
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


def n_elements(checkpoint: Checkpoint) -> int:
    """How many elements a stream of the checkpoint, or of a merge onto it, goes through."""
    return sum(math.prod(info.shape) for info in checkpoint.tensors.values())


def stream_checkpoint(
    checkpoint: Checkpoint, sink: Sink, advance: Advance = lambda elements: None
) -> None:
    """A checkpoint's weights as they are; NonFiniteError for NaN or infinity.

    `advance(n)` is told of every n elements done, of `n_elements` in all.
    """
    for name in checkpoint.tensors:
        tensor = checkpoint.tensor(name)
        for rows in row_blocks(tensor.shape):
            sink.write(name, rows, finite(tensor[rows], checkpoint.label, name))
        advance(tensor.numel())


def stream_merge(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    method: MergeMethod,
    sink: Sink,
    *,
    seed: int,
    dtype: str | None = None,
    relax: Relaxation | None = None,
    threads: int | None = None,
    device: str | None = None,
    advance: Advance = lambda elements: None,
) -> RelaxationReport:
    """Merge `experts` by `method`, relax towards base, and hand the blocks to `sink`.

    The tensors are base's. Arithmetic in float32, rounded once to `dtype` (None: the dtype
    of each tensor in base). Tensors of integers are base's. `threads` (None: as many as
    torch uses for an operation; at most `MOST_THREADS`) each take whole tensors; their number
    changes no bit.
    `device` (None: the processor, on the mapped files themselves) is where tensors are
    uploaded to, one ahead, and where the sink's blocks are; the one thread that gives it work
    is enough. `advance(n)` is told of every n elements done, of `n_elements(base)` in all.
    Raises NonFiniteError for NaN or infinity in any model or in the result.
    """
    scratch = Scratch(device or "cpu")

    def load(name: str) -> Sequence[Tensor]:
        return [model.tensor(name) for model in (base, *experts)]

    def merge(name: str) -> KindReport | None:
        start, *tuned = tensors(name)
        inputs = TensorInputs(
            name=name,
            base=start,
            experts=tuple(tuned),
            expert_names=tuple(expert.label for expert in experts),
            seed=seed,
            scratch=scratch,
        )
        info = base.tensors[name]
        if not info.is_floating:
            _copy_integers(inputs, sink)
            return None
        factors = relax and relax.factors(name, inputs.base.shape)
        target = getattr(torch, dtype or info.dtype)
        if factors is not None:
            factors = factors.to(scratch.device)
        return _merge_tensor(inputs, method, factors, target, sink)

    # Largest first: no thread is left alone with a large one at the end.
    names = sorted(base.tensors, key=lambda name: -math.prod(base.tensors[name].shape))
    report = RelaxationReport()
    with ExitStack() as stack:
        map_over = stack.enter_context(_workers(1 if device else threads))
        tensors: Load = load
        if device:
            tensors = stack.enter_context(Uploads(load, names, torch.device(device)))
        for name, kind in zip(names, map_over(merge, names), strict=True):
            if kind:
                report.kinds.setdefault(kind_of(name), KindReport()).add(kind)
            advance(math.prod(base.tensors[name].shape))
    return report


@contextmanager
def _workers(threads: int | None) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over `threads` threads; torch's operations then have one thread each.

    A block's operations are too short to share out: that would take longer than they do.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        count = min(threads or before, MOST_THREADS)
        if count == 1:
            yield map
        else:
            with ThreadPoolExecutor(count) as pool:
                yield pool.map
    finally:
        torch.set_num_threads(before)


def _merge_tensor(
    inputs: TensorInputs,
    method: MergeMethod,
    factors: Tensor | None,
    dtype: torch.dtype,
    sink: Sink,
) -> KindReport:
    kernel = method.prepare(inputs)
    pull = None if factors is None else _Pull(inputs, factors)
    for rows in inputs.blocks():
        block = kernel(rows)
        if method.from_base:
            delta = pull.delta(block, rows) if pull else block
            block = delta.add_(inputs.base_rows(rows))
        elif pull:
            block = pull.merged(block, rows)
        rounded = inputs.scratch(f"rounded to {dtype}", block.shape, dtype).copy_(block)
        if not all_finite(rounded):
            inputs.check()  # whose fault it is
            finite(rounded, "merged model", inputs.name)
        sink.write(inputs.name, rows, rounded)
    report = pull.report() if pull else KindReport()
    report.parameters = inputs.base.numel()
    return report


class _Pull:
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


def _copy_integers(inputs: TensorInputs, sink: Sink) -> None:
    for name, tensor in zip(inputs.expert_names, inputs.experts, strict=True):
        if not torch.equal(tensor, inputs.base):
            raise CheckpointError(
                f"{name}: tensor {inputs.name} holds integers that differ from base's; "
                "they cannot be merged"
            )
    sink.write(inputs.name, slice(0, len(inputs.base)), inputs.base)
