"""Weights flow once: checkpoints, merge method, AIM relaxation, sink; block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from aim_exp.aim.pull import KindReport, Pull, Relaxation, RelaxationReport
from aim_exp.checkpoint.names import kind_of
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.console import Advance
from aim_exp.errors import CheckpointError
from aim_exp.merge.method import MergeMethod
from aim_exp.tensors.blocks import row_blocks
from aim_exp.tensors.inputs import TensorInputs, all_finite, finite
from aim_exp.tensors.scratch import Scratch
from aim_exp.tensors.sink import Sink
from aim_exp.tensors.uploads import Fetch, Uploads

MOST_THREADS = 4
"""More only wait for each other: between a block's operations, a few microseconds each, a
thread holds Python's lock. On two processors 8 threads took longer than one (TIES, DARE)."""


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

    def fetch(name: str) -> Sequence[Tensor]:
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
        tensors: Fetch = fetch
        if device:
            tensors = stack.enter_context(Uploads(fetch, names, torch.device(device)))
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
    pull = None if factors is None else Pull(inputs, factors)
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


def _copy_integers(inputs: TensorInputs, sink: Sink) -> None:
    for name, tensor in zip(inputs.expert_names, inputs.experts, strict=True):
        if not torch.equal(tensor, inputs.base):
            raise CheckpointError(
                f"{name}: tensor {inputs.name} holds integers that differ from base's; "
                "they cannot be merged"
            )
    sink.write(inputs.name, slice(0, len(inputs.base)), inputs.base)
