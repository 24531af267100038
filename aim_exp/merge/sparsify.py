"""Which elements of a task vector stay.

A sparsifier works in place on rows of a float32 delta. What it needs to know of the whole
tensor is found beforehand, in a fixed order, so that neither the size of a block nor the
order of blocks changes a bit of the result. NaN stays NaN all the way.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aim_exp.merge.masks import draws, keep_bytes, stream_key
from aim_exp.merge.thresholds import ModelTrim, deltas_of, threshold
from aim_exp.tensors.blocks import row_size
from aim_exp.tensors.inputs import SPARE, TensorInputs


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
    return _from(inputs, *threshold(inputs, expert, k))


def trimmed(inputs: TensorInputs, trim: ModelTrim) -> Sparsifier:
    """Keep a tensor's part of what a whole task vector keeps."""
    return Sparsifier(_from(inputs, trim.threshold, trim.last[inputs.name]))


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
    for rows, delta in deltas_of(inputs, expert):
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
