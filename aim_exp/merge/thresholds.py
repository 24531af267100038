"""The magnitude from which on a task vector is kept: of a tensor, or of the whole model.

Exact, in passes over blocks: what is kept does not depend on how the blocks are cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.tensors.blocks import row_size
from aim_exp.tensors.inputs import SPARE, TensorInputs

SAMPLE = 1 << 14
"""Elements that give a first idea of a threshold, if the tensor has four times as many."""
SAMPLE_RUN = 8
"""Neighbours taken at each place: more are quicker to get and less of a sample."""


def threshold(inputs: TensorInputs, expert: int, k: int) -> tuple[float, int]:
    """The k-th largest magnitude of a delta, and the index of the last one equal to it to keep."""
    sampled = inputs.base.numel() >= 4 * SAMPLE and inputs.scratch.on_cpu
    return (sampled_threshold if sampled else plain_threshold)(inputs, expert, k)


def model_trim(base: Checkpoint, expert: Checkpoint, density: float) -> ModelTrim:
    """Which of a whole task vector's elements are its k = max(1, floor(density n)) largest.

    Of equal magnitudes at the threshold the first stay, in base's order of tensors.
    """
    floating = {name: info for name, info in base.tensors.items() if info.is_floating}
    sizes = {name: math.prod(info.shape) for name, info in floating.items()}
    k = max(1, int(density * sum(sizes.values())))

    def magnitudes(name: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
        pair = (base.tensor(name), (expert.tensor(name),))
        inputs = TensorInputs(name, *pair, (expert.label,), 0)
        inputs.check()
        return _magnitudes(inputs, 0)

    def of_all() -> Iterator[NDArray[np.float32]]:
        return (block for name in floating for _, block in magnitudes(name))

    threshold = _kth_largest(of_all, k)
    room = k - sum(int(np.count_nonzero(block > threshold)) for block in of_all())
    last = dict.fromkeys(floating, -1)
    for name in floating:
        for first, block in magnitudes(name) if room else ():
            equal = np.flatnonzero(block == threshold)[:room]
            room -= len(equal)
            last[name] = first + int(equal[-1]) if len(equal) else last[name]
    return ModelTrim(float(threshold), last)


@dataclass(frozen=True)
class ModelTrim:
    """The smallest magnitude that stays; by tensor the index of the last equal one, -1 for none."""

    threshold: float
    last: Mapping[str, int]


def sampled_threshold(inputs: TensorInputs, expert: int, k: int) -> tuple[float, int]:
    """The same, in little memory.

    Exact in one pass over the tensor: a sample tells between which two magnitudes the k-th
    lies, almost surely; the pass counts what is above and what equals either, and collects
    the few between. Deltas of bfloat16 models take few values: many elements equal a bound.
    Where the sample was wrong, two passes find the magnitude, and one counts its equals.
    """
    for bounds in (_bracket, _exact_bounds):
        low, high = bounds(inputs, expert, k)
        parts = _split_all(inputs, expert, low, high)
        rank = k - sum(part.above for part in parts)  # among what is at most `high`
        at_high, at_low = sum(part.at_high for part in parts), sum(part.at_low for part in parts)
        if 0 < rank <= at_high + sum(part.inside.size for part in parts) + at_low:
            inside = np.concatenate([part.inside for part in parts])
            break
    else:  # k elements are NaN: all of them are kept, for the stream to refuse
        return 0.0, inputs.base.numel()
    if rank <= at_high:
        threshold, equal = high, [part.at_high for part in parts]
    elif rank <= at_high + inside.size:
        rank -= at_high
        place = inside.size - rank
        threshold = np.partition(inside, place)[place]
        rank -= np.count_nonzero(inside > threshold)
        equal = [np.count_nonzero(part.inside == threshold) for part in parts]
    else:
        rank -= at_high + inside.size
        threshold, equal = low, [part.at_low for part in parts]
    block = int(np.searchsorted(np.cumsum(equal), rank))
    first, magnitudes = next(islice(_magnitudes(inputs, expert, block), 1))
    last = np.flatnonzero(magnitudes == threshold)[rank - sum(equal[:block]) - 1]
    return float(threshold), first + int(last)


def plain_threshold(inputs: TensorInputs, expert: int, k: int) -> tuple[float, int]:
    """The same as `sampled_threshold` of the whole tensor at once, on any device."""
    magnitudes = torch.cat([delta.abs().view(-1) for _, delta in deltas_of(inputs, expert)])
    n = magnitudes.numel()
    threshold = magnitudes.kthvalue(n - k + 1).values
    if threshold.isnan():
        return 0.0, n
    above = n - int((magnitudes <= threshold).sum())
    equal = (magnitudes == threshold).nonzero()
    return threshold.item(), int(equal[k - above - 1])


class _Part(NamedTuple):
    """How a block's magnitudes lie to two bounds."""

    above: int
    at_high: int
    inside: NDArray[np.float32]
    at_low: int


def _split_all(inputs: TensorInputs, expert: int, low: np.float32, high: np.float32) -> list[_Part]:
    """Every block's part; none where the bounds hold so much between them that memory counts."""
    parts: list[_Part] = []
    room = max(4 * SAMPLE, inputs.base.numel() // 8)
    for _, magnitudes in _magnitudes(inputs, expert):
        parts.append(_split(magnitudes, low, high))
        room -= parts[-1].inside.size
        if room < 0:
            return []
    return parts


def _split(magnitudes: NDArray[np.float32], low: np.float32, high: np.float32) -> _Part:
    at_most, at_high, more = magnitudes <= high, magnitudes == high, magnitudes > low
    return _Part(
        above=magnitudes.size - int(np.count_nonzero(at_most)),  # NaN too
        at_high=int(np.count_nonzero(at_high)) if high != low else 0,
        inside=np.compress(more & at_most & ~at_high, magnitudes),
        at_low=int(np.count_nonzero(magnitudes == low)),
    )


def _bracket(inputs: TensorInputs, expert: int, k: int) -> tuple[np.float32, np.float32]:
    """Between which bounds the k-th largest magnitude lies, by `SAMPLE` spread elements."""
    n = inputs.base.numel()
    runs = SAMPLE // SAMPLE_RUN
    tuned, base = (
        tensor.reshape(-1)[: n // runs * runs].view(runs, -1)[:, :SAMPLE_RUN].flatten().float()
        for tensor in (inputs.experts[expert], inputs.base)
    )
    sample = np.sort(tuned.sub_(base).abs_().numpy())
    share = k / n
    center = SAMPLE * (1 - share)
    margin = 5 * math.sqrt(SAMPLE * share * (1 - share)) + 1
    return sample[max(0, int(center - margin))], sample[min(SAMPLE - 1, int(center + margin))]


def _exact_bounds(inputs: TensorInputs, expert: int, k: int) -> tuple[np.float32, np.float32]:
    """The k-th largest magnitude itself, twice."""
    magnitude = _kth_largest(lambda: (block for _, block in _magnitudes(inputs, expert)), k)
    return magnitude, magnitude


def _kth_largest(blocks: Callable[[], Iterable[NDArray[np.float32]]], k: int) -> np.float32:
    """Of magnitudes in blocks, gone through twice; NaN counts as the largest.

    Magnitudes are ordered as their bits are: a pass counts the upper halves of the words, and
    tells which the k-th has, and another the lower halves of those with that one.
    """
    bits = 0
    for shift in (16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for magnitudes in blocks():
            words = magnitudes.view(np.uint32) >> shift
            if not shift:
                words = words[words >> 16 == bits] & 0xFFFF
            counts += np.bincount(words, minlength=1 << 16)
        from_top = np.cumsum(counts[::-1])
        place = int(np.searchsorted(from_top, k))
        k -= int(from_top[place - 1]) if place else 0
        bits = bits << 16 | (0xFFFF - place)
    return np.uint32(bits).view(np.float32)


def _magnitudes(
    inputs: TensorInputs, expert: int, block: int = 0
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The magnitudes of a delta from a block on, flat, with the index of each block's first."""
    columns = row_size(inputs.base.shape)
    for rows, delta in deltas_of(inputs, expert, block):
        yield rows.start * columns, delta.abs_().view(-1).numpy()


def deltas_of(inputs: TensorInputs, expert: int, block: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """The task vector block by block from a block on, always the same blocks."""
    for rows in islice(inputs.blocks(), block, None):
        yield rows, inputs.delta(expert, rows, SPARE)
