"""Weights flow once: checkpoints, merge method, AIM relaxation, sink; block by block."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from aim_exp.aim.dose import KindReport, RelaxationReport
from aim_exp.aim.pull import AnyRelaxation, Delta
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.varying import depths
from aim_exp.console import Advance
from aim_exp.errors import CheckpointError, NonFiniteError
from aim_exp.merge.method import Kernel, MergeMethod
from aim_exp.tensors.blocks import row_blocks
from aim_exp.tensors.inputs import TensorInputs, all_finite, finite
from aim_exp.tensors.scratch import Scratch
from aim_exp.tensors.sink import Sink
from aim_exp.tensors.uploads import Fetch, Uploads

T = TypeVar("T")
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
    relax: AnyRelaxation | None = None,
    threads: int | None = None,
    device: str | None = None,
    advance: Advance = lambda elements: None,
) -> RelaxationReport:
    """Merge `experts` by `method`, relax towards base, and hand the blocks to `sink`.

    The tensors are base's. Arithmetic in float32, rounded once to `dtype` (None: the dtype
    of each tensor in base). Tensors of integers are base's. For `threads`, `device` and
    `advance` see `over_tensors`. Raises NonFiniteError for NaN or infinity in any model or in
    the result.
    """

    def merge(inputs: TensorInputs) -> KindReport | None:
        info = base.tensors[inputs.name]
        if not info.is_floating:
            _copy_integers(inputs, sink)
            return None
        return _merge_tensor(inputs, method, relax, getattr(torch, dtype or info.dtype), sink)

    models = (base, *experts)
    report = RelaxationReport(omega=relax.omega if relax else None)
    for name, tensor in over_tensors(
        models, merge, seed=seed, threads=threads, device=device, advance=advance
    ):
        if tensor:
            report.add(name, tensor)
    return report


def over_tensors(
    models: Sequence[Checkpoint],
    work: Callable[[TensorInputs], T],
    *,
    seed: int,
    names: Iterable[str] | None = None,
    threads: int | None = None,
    device: str | None = None,
    advance: Advance = lambda elements: None,
) -> Iterator[tuple[str, T]]:
    """What `work` gives for each tensor of base, the first of `models`, and of the experts.

    For those of `names` only, if they are given.

    `threads` (None: as many as torch uses for an operation; at most `MOST_THREADS`) each take
    whole tensors; their number changes no bit. `device` (None: the processor, on the mapped
    files themselves) is where tensors are uploaded to, one ahead; the one thread that gives it
    work is enough. `advance(n)` is told of every n elements done, of `n_elements(base)` in all.
    """
    base, *experts = models
    scratch, depth_of = Scratch(device or "cpu"), depths(base.tensors)

    def fetch(name: str) -> Sequence[Tensor]:
        return [model.tensor(name) for model in models]

    def worked(name: str) -> T:
        start, *tuned = tensors(name)
        return work(
            TensorInputs(
                name=name,
                base=start,
                experts=tuple(tuned),
                expert_names=tuple(expert.label for expert in experts),
                seed=seed,
                scratch=scratch,
                depth=depth_of[name],
            )
        )

    # Largest first: no thread is left alone with a large one at the end.
    names = sorted(
        base.tensors if names is None else names,
        key=lambda name: -math.prod(base.tensors[name].shape),
    )
    with ExitStack() as stack:
        map_over = stack.enter_context(_workers(1 if device else threads))
        tensors: Fetch = fetch
        if device:
            tensors = stack.enter_context(Uploads(fetch, names, torch.device(device)))
        for name, value in zip(names, map_over(worked, names), strict=True):
            yield name, value
            advance(math.prod(base.tensors[name].shape))


def delta_of(inputs: TensorInputs, method: MergeMethod) -> Delta:
    """The merge's difference to base in a tensor."""
    method = method.at(inputs.name)
    return difference(inputs, method, method.prepare(inputs))


def difference(inputs: TensorInputs, method: MergeMethod, kernel: Kernel) -> Delta:
    """What `kernel`, of a tensor of `method`, says of the merge's difference to base."""
    if method.from_base:
        return kernel
    return lambda rows: kernel(rows).sub_(inputs.base_rows(rows))


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
    relax: AnyRelaxation | None,
    dtype: torch.dtype,
    sink: Sink,
) -> KindReport:
    method = method.at(inputs.name)
    kernel = method.prepare(inputs)
    pull = relax.pull(inputs, difference(inputs, method, kernel)) if relax else None
    rounded = partial(_rounded, inputs, dtype)
    differing = 0
    for rows in inputs.blocks():
        block, plain = kernel(rows), None
        if method.from_base:
            if pull:
                base = inputs.base_rows(rows)
                plain = inputs.scratch(f"plain in {dtype}", base.shape, dtype)
                torch.add(block, base, out=plain)
                block = pull.delta(block, rows)
            block = block.add_(inputs.base_rows(rows))
        elif pull:
            plain = rounded(block)
            block = pull.merged(block, rows)
        out = rounded(block, "out")
        if not all_finite(out):
            inputs.check()  # whose fault it is
            finite(block, "merged model", inputs.name)
            raise NonFiniteError(
                f"merged model: tensor {inputs.name} reaches {block.abs().max().item():.3g}, and "
                f"{dtype} ends at {torch.finfo(dtype).max:.5g}; set dtype=bfloat16"
            )
        if plain is not None:
            differing += int(plain.ne_(out).sum(dtype=torch.float32))  # exact up to 2^24
        sink.write(inputs.name, rows, out)
    report = pull.report() if pull else KindReport()
    report.parameters, report.differing = inputs.base.numel(), differing
    return report


def _rounded(
    inputs: TensorInputs, dtype: torch.dtype, block: Tensor, what: str = "plain"
) -> Tensor:
    return inputs.scratch(f"{what} in {dtype}", block.shape, dtype).copy_(block)


def _copy_integers(inputs: TensorInputs, sink: Sink) -> None:
    for name, tensor in zip(inputs.expert_names, inputs.experts, strict=True):
        if not torch.equal(tensor, inputs.base):
            raise CheckpointError(
                f"{name}: tensor {inputs.name} holds integers that differ from base's; "
                "they cannot be merged"
            )
    sink.write(inputs.name, slice(0, len(inputs.base)), inputs.base)
