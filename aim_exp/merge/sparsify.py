"""Which elements of a task vector stay, and how elected signs combine them.

A sparsifier works in place on rows of a float32 delta. What it needs to know of the whole
tensor is found beforehand, in a fixed order, so that neither the size of a block nor the
order of blocks changes a bit of the result. NaN stays NaN all the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.merge.masks import draws, keep_bytes, stream_key
from aim_exp.tensors.blocks import row_size
from aim_exp.tensors.inputs import SPARE, TensorInputs
from aim_exp.tensors.scratch import Scratch

SAMPLE = 1 << 14
"""Elements that give a first idea of a threshold, if the tensor has four times as many."""
SAMPLE_RUN = 8
"""Neighbours taken at each place: more are quicker to get and less of a sample."""


def _all(delta: Tensor, rows: slice) -> None:
    pass


def _none(delta: Tensor, rows: slice) -> None:
    delta.mul_(0)


@dataclass(frozen=True)
class Sparsifier:
    """`keep` sets what it drops of a delta's rows to zero; the rest is to be times `rescale`."""

    keep: Callable[[Tensor, slice], None] = _all
    rescale: float = 1.0


def top_k(inputs: TensorInputs, expert: int, density: float) -> Sparsifier:
    """Keep the k = max(1, floor(density n)) largest magnitudes of the task vector.

    Of equal magnitudes at the threshold those with the lowest index stay.
    """
    return Sparsifier(_largest(inputs, expert, max(1, int(density * inputs.base.numel()))))


def without_outliers(inputs: TensorInputs, expert: int, density: float, gamma: float) -> Sparsifier:
    """Drop the share `gamma` of the largest magnitudes, keep the share `density` below them.

    Fewer of the largest go where more would not leave `density` (Davari and Belilovsky 2024).
    """
    n = inputs.base.numel()
    kept = int(density * n)
    outliers = min(int(gamma * n), n - kept)
    keep, excess = (_largest(inputs, expert, k) for k in (outliers + kept, outliers))

    def drop(delta: Tensor, rows: slice) -> None:
        largest = inputs.scratch("outliers", delta.shape).copy_(delta)
        excess(largest, rows)
        keep(delta, rows)
        delta.sub_(largest)

    return Sparsifier(drop)


def _largest(inputs: TensorInputs, expert: int, k: int) -> Callable[[Tensor, slice], None]:
    """What sets all but the k largest magnitudes of a task vector to zero; see `top_k`."""
    n = inputs.base.numel()
    if k >= n:
        return _all
    if k == 0:
        return _none
    sampled = n >= 4 * SAMPLE and inputs.scratch.on_cpu
    return _from(inputs, *(_threshold if sampled else _plain_threshold)(inputs, expert, k))


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

    def sparsifier(self, inputs: TensorInputs) -> Sparsifier:
        """What keeps a tensor's part."""
        return Sparsifier(_from(inputs, self.threshold, self.last[inputs.name]))


def _from(inputs: TensorInputs, threshold: float, last: int) -> Callable[[Tensor, slice], None]:
    """What keeps all magnitudes above a threshold, and those equal to it up to an index."""
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    columns = row_size(inputs.base.shape)

    def keep(delta: Tensor, rows: slice) -> None:
        flat = delta.view(-1)
        split = min(max(0, last + 1 - rows.start * columns), flat.numel())
        # hardshrink zeroes all up to a magnitude: up to `last`, what is less than the
        # threshold, beyond it also what is equal.
        for part, limit in ((flat[:split], below), (flat[split:], threshold)):
            torch.hardshrink(part, limit, out=part)

    return keep


def random_drop(
    inputs: TensorInputs, expert: int, density: float, rescale: str | None
) -> Sparsifier:
    """Keep each element with probability `density` (to 1 / 65536), rescaled.

    The mask depends on (seed, expert's name, tensor's name, index of the element) alone.
    """
    if density >= 1:
        return Sparsifier()
    key = stream_key(inputs.seed, inputs.expert_names[expert], inputs.name)
    columns = row_size(inputs.base.shape)

    def keep(delta: Tensor, rows: slice) -> None:
        kept = keep_bytes(key, rows.start * columns, delta.numel(), density, inputs.scratch)
        mask = inputs.scratch("mask", delta.shape)
        mask.view(-1).copy_(kept)
        delta.mul_(mask)

    factor = 1.0
    if rescale == "inv_density":
        factor = 1 / density
    elif rescale == "l1":
        factor = _kept_l1(inputs, expert, keep)
    return Sparsifier(keep, factor)


def _kept_l1(inputs: TensorInputs, expert: int, keep: Callable[[Tensor, slice], None]) -> float:
    """sum |d| of a task vector over that of what `keep` keeps."""
    before = after = 0.0
    for rows, delta in _deltas(inputs, expert):
        before += delta.abs_().sum(dtype=torch.float64).item()
        keep(delta, rows)
        after += delta.sum(dtype=torch.float64).item()
    return before / after if after else 1.0


def ranked_drop(
    inputs: TensorInputs, expert: int, density: float, epsilon: float, rescale: str | None
) -> Sparsifier:
    """Keep each element with probability density - epsilon + 2 epsilon r (Deep et al. 2024).

    r in [0, 1] is the rank of its magnitude in its row, a run of the last axis; of equal ones
    the earlier is the lower, and the only element of a row has r = 1/2. Masks as `random_drop`.
    """
    if density >= 1:
        return Sparsifier()
    key = stream_key(inputs.seed, inputs.expert_names[expert], inputs.name)
    columns = row_size(inputs.base.shape)
    whole = inputs.base.ndim == 1  # one row: its ranks are not those of a block
    every = slice(0, len(inputs.base))
    ranks = _ranks(inputs.delta(expert, every, SPARE)) if whole and columns else None

    def keep(delta: Tensor, rows: slice) -> None:
        rank = _ranks(delta) if ranks is None else ranks[rows]
        chance = rank * (2 * epsilon) + (density - epsilon)
        uniform = draws(key, rows.start * columns, delta.numel(), delta.device).view(delta.shape)
        limit = chance.mul(1 << 16).round_().clamp_(1, (1 << 16) - 1).sub_(1 << 15)
        delta.mul_(uniform < limit)
        if rescale == "inv_density":
            delta.div_(chance)

    return Sparsifier(keep, _kept_l1(inputs, expert, keep) if rescale == "l1" else 1.0)


def _ranks(delta: Tensor) -> Tensor:
    """The ranks of magnitudes along the last axis over the highest, float32; NaN stays NaN."""
    order = delta.abs().argsort(dim=-1, stable=True)
    last = delta.shape[-1] - 1
    ranks = torch.empty_like(delta)
    places = torch.arange(last + 1, dtype=delta.dtype, device=delta.device)
    ranks.scatter_(-1, order, places.expand_as(delta))
    return ranks.div_(last) if last > 0 else ranks.fill_(0.5)


def elect_and_sum(
    deltas: list[Tensor],
    weights: list[float],
    scratch: Scratch,
    *,
    normalize: bool,
    factors: Sequence[float] | None = None,
) -> Tensor:
    """Sum the weighted `deltas` that have the sign of their total; overwrites them.

    With `normalize`, divided elementwise by the sum of the weights kept (1 where none is).
    `factors` count in the sum and not in the total.
    """
    shape = deltas[0].shape
    total = scratch("total", shape).copy_(deltas[0])
    for delta in deltas[1:]:
        total.add_(delta)
    # +1 or -1; of a zero +1: its sign is minus only where every delta is zero.
    one = torch.ones((), device=total.device)
    sign = torch.copysign(one, total, out=scratch("sign", shape))
    kept, kept_weight = total.zero_(), scratch("kept weight", shape).zero_()
    factors = factors or [1.0] * len(deltas)
    for delta, weight, factor in zip(deltas, weights, factors, strict=True):
        agreeing = delta.mul_(sign).relu_()  # its magnitude where the signs agree, or zero
        kept.add_(agreeing, alpha=factor)
        if normalize:
            kept_weight.add_(agreeing.sign_(), alpha=weight)
    kept.mul_(sign)
    if normalize:
        # One where no weight is kept; comparing and filling would take several times as long.
        nonzero = torch.sign(kept_weight, out=sign)
        kept_weight.add_(torch.addcmul(one, nonzero, nonzero, value=-1, out=sign))
        kept.div_(kept_weight)
    return kept


def _threshold(inputs: TensorInputs, expert: int, k: int) -> tuple[float, int]:
    """The k-th largest magnitude of a delta, and the index of the last one equal to it to keep.

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


def _plain_threshold(inputs: TensorInputs, expert: int, k: int) -> tuple[float, int]:
    """The same as `_threshold` of the whole tensor at once, on any device."""
    magnitudes = torch.cat([delta.abs().view(-1) for _, delta in _deltas(inputs, expert)])
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
    found = 0
    for shift in (16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for magnitudes in blocks():
            words = magnitudes.view(np.uint32) >> shift
            if not shift:
                words = words[words >> 16 == found] & 0xFFFF
            counts += np.bincount(words, minlength=1 << 16)
        from_top = np.cumsum(counts[::-1])
        place = int(np.searchsorted(from_top, k))
        k -= int(from_top[place - 1]) if place else 0
        found = found << 16 | (0xFFFF - place)
    return np.uint32(found).view(np.float32)


def _magnitudes(
    inputs: TensorInputs, expert: int, block: int = 0
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The magnitudes of a delta from a block on, flat, with the index of each block's first."""
    columns = row_size(inputs.base.shape)
    for rows, delta in _deltas(inputs, expert, block):
        yield rows.start * columns, delta.abs_().view(-1).numpy()


def _deltas(inputs: TensorInputs, expert: int, block: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """The task vector block by block from a block on, always the same blocks."""
    for rows in islice(inputs.blocks(), block, None):
        yield rows, inputs.delta(expert, rows, SPARE)
