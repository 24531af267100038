"""WIDEN's arithmetic: columns to magnitudes and directions, differences to ranks to weights."""

from collections.abc import Iterator

import torch
from torch import Tensor

from aim_exp.tensors.inputs import TensorInputs, finite

COLUMN_BLOCK = 1 << 20
"""Elements of a block of columns: what bounds the memory."""


def column_weights(
    inputs: TensorInputs, *, by_token: bool, dtype: str, ratio: float, calibrated: float
) -> Tensor:
    """float32 [experts, columns]: how much of each expert's delta each column takes.

    `by_token` takes the rows as columns. A vector is its own columns, with the absolute
    difference as the only quantity.
    """
    compute = getattr(torch, dtype)
    if inputs.base.ndim == 1:
        base = finite(inputs.base, "base", inputs.name).to(compute)
        difference = torch.stack([(x.to(compute) - base).abs().float() for x in inputs.experts])
        above = difference > ratio * difference.mean(1, keepdim=True)
        return torch.where(above, calibrated, difference.softmax(0))
    magnitudes, directions = _differences(inputs, by_token, compute)
    return (_scores(magnitudes, ratio, calibrated) + _scores(directions, ratio, calibrated)) / 2


def _differences(inputs: TensorInputs, by_token: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Per column |change of magnitude| and 1 - cos of the directions, each [experts, columns]."""
    magnitudes, directions = [], []
    for columns in _column_blocks(inputs.base, by_token):
        base = finite(_columns(inputs.base, columns, by_token).to(dtype), "base", inputs.name)
        base_norm = base.norm(dim=0)
        direction = base / base_norm
        for name, expert in zip(inputs.expert_names, inputs.experts, strict=True):
            tuned = finite(_columns(expert, columns, by_token).to(dtype), name, inputs.name)
            tuned_norm = tuned.norm(dim=0)
            magnitudes.append((tuned_norm - base_norm).abs())
            cosine = torch.cosine_similarity(tuned / tuned_norm, direction, dim=0)
            # A zero column has no direction (0 / 0): it counts as unchanged.
            directions.append((1 - cosine).nan_to_num_(nan=0.0))
    return _by_expert(magnitudes, inputs), _by_expert(directions, inputs)


def _by_expert(blocks: list[Tensor], inputs: TensorInputs) -> Tensor:
    """Blocks of columns, the experts in turn in each, as [experts, columns]."""
    n = len(inputs.experts)
    return torch.stack([torch.cat(blocks[index::n]) for index in range(n)])


def _scores(differences: Tensor, ratio: float, calibrated: float) -> Tensor:
    """[experts, columns] differences to scores: softmax of ranks, or `calibrated` above the rest.

    The mean of the ranks 0 .. n - 1 is (n - 1) / 2: compared in integers, so that rounding
    decides nothing.
    """
    n = differences.shape[1]
    order = differences.argsort(dim=1, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(n, device=order.device).expand_as(order))
    softmax = (ranks.float() / n).softmax(0)
    return torch.where(2 * ranks > ratio * (n - 1), calibrated, softmax)


def _column_blocks(tensor: Tensor, by_token: bool) -> Iterator[slice]:
    rows, columns = tensor.shape[0], tensor[0].numel()
    count, length = (rows, columns) if by_token else (columns, rows)
    step = max(1, COLUMN_BLOCK // max(1, length))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _columns(tensor: Tensor, columns: slice, by_token: bool) -> Tensor:
    return tensor[columns].T if by_token else tensor.flatten(1)[:, columns]
