"""Which elements of a task vector stay, and how elected signs combine them.

A sparsifier works in place on rows of a float32 delta. What it needs to know of the whole
tensor is found beforehand, in a fixed order, so that neither the size of a block nor the
order of blocks changes a bit of the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from aim_exp.merge.blocks import row_blocks, row_size
from aim_exp.merge.method import TensorInputs

Sparsifier = Callable[[Tensor, slice], None]

_GOLDEN_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_LANES = 4  # 16-bit draws in a 64-bit word


def top_k(inputs: TensorInputs, expert: int, density: float) -> Sparsifier:
    """Keep the k = max(1, floor(density n)) largest magnitudes of the task vector.

    Of equal magnitudes at the threshold those with the lowest index stay.
    """
    n = inputs.base.numel()
    k = max(1, int(density * n))
    if k >= n:
        return _keep_all
    magnitudes = np.empty(n, dtype=np.float32)
    end = 0
    for delta in _deltas(inputs, expert):
        start, end = end, end + delta.numel()
        torch.abs(delta.flatten(), out=torch.from_numpy(magnitudes[start:end]))
    threshold = np.partition(magnitudes, n - k)[n - k]
    spare = k - int(np.count_nonzero(magnitudes > threshold))
    last = int(np.flatnonzero(magnitudes == threshold)[spare - 1])
    columns = row_size(inputs.base.shape)
    limit = float(threshold)

    def keep(delta: Tensor, rows: slice) -> None:
        magnitude = delta.abs()
        dropped = magnitude < limit
        first = rows.start * columns
        if last + 1 - first < delta.numel():  # equal ones beyond `last` go too
            tail = max(0, last + 1 - first)
            dropped.view(-1)[tail:] |= magnitude.view(-1)[tail:] == limit
        delta.masked_fill_(dropped, 0)

    return keep


def random_drop(
    inputs: TensorInputs, expert: int, density: float, rescale: str | None
) -> Sparsifier:
    """Keep each element with probability `density` (to 1 / 65536), rescaled.

    The mask depends on (seed, expert's name, tensor's name, index of the element) alone.
    """
    if density >= 1:
        return _keep_all
    key = _stream_key(inputs.seed, inputs.expert_names[expert], inputs.name)
    columns = row_size(inputs.base.shape)

    def kept(rows: slice, like: Tensor) -> Tensor:
        mask = keep_mask(key, rows.start * columns, like.numel(), density)
        return mask.view(like.shape)

    factor = 1.0
    if rescale == "inv_density":
        factor = 1 / density
    elif rescale == "l1":
        before = after = 0.0
        for rows, delta in zip(row_blocks(inputs.base.shape), _deltas(inputs, expert), strict=True):
            before += delta.abs().sum(dtype=torch.float64).item()
            after += (delta.abs() * kept(rows, delta)).sum(dtype=torch.float64).item()
        factor = before / after if after else 1.0

    def drop(delta: Tensor, rows: slice) -> None:
        delta.mul_(kept(rows, delta))
        if factor != 1.0:
            delta.mul_(factor)

    return drop


def elect_and_sum(deltas: list[Tensor], weights: list[float], *, normalize: bool) -> Tensor:
    """Sum the weighted deltas that have the sign of their total; overwrites `deltas`.

    With `normalize`, divided elementwise by the sum of the weights kept (1 where none is).
    """
    for delta, weight in zip(deltas, weights, strict=True):
        delta.mul_(weight)
    total = deltas[0].clone()
    for delta in deltas[1:]:
        total.add_(delta)
    positive = total >= 0
    kept_weight = torch.zeros_like(total) if normalize else None
    total.zero_()
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = torch.where(positive, delta > 0, delta < 0)
        total.add_(delta.mul_(agrees))
        if kept_weight is not None:
            kept_weight.add_(agrees, alpha=weight)
    if kept_weight is not None:
        total.div_(kept_weight.masked_fill_(kept_weight == 0, 1))
    return total


def keep_mask(key: int, first: int, count: int, density: float) -> Tensor:
    """Whether elements `first` .. `first + count` of stream `key` stay: bool [count].

    A counter-based generator: SplitMix64 (Steele et al. 2014) of the index, four 16-bit
    draws to a word, in integer operations that every device computes alike.
    """
    words = torch.arange(first // _LANES, (first + count - 1) // _LANES + 1, dtype=torch.int64)
    words.mul_(_GOLDEN_GAMMA).add_(key)
    words.bitwise_xor_(_logical_shift(words, 30)).mul_(_MIX_1)
    words.bitwise_xor_(_logical_shift(words, 27)).mul_(_MIX_2)
    words.bitwise_xor_(_logical_shift(words, 31))
    draws = words.view(torch.int16)[first % _LANES :][:count]
    return draws < max(1, min(65535, round(density * 65536))) - 32768


def _logical_shift(words: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros: torch has no unsigned shift."""
    return (words >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _stream_key(seed: int, expert: str, tensor: str) -> int:
    digest = hashlib.sha256(f"{seed}\n{expert}\n{tensor}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _deltas(inputs: TensorInputs, expert: int) -> Iterator[Tensor]:
    """The task vector block by block, always the same blocks."""
    for rows in row_blocks(inputs.base.shape):
        yield inputs.rows(expert, rows).sub_(inputs.base_rows(rows))


def _keep_all(delta: Tensor, rows: slice) -> None:
    pass
