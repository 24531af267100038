"""Cutting a tensor into blocks of whole rows, so that memory does not grow with the tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_ELEMENTS = 1 << 18
"""Aim of a block's size: 1 MiB of float32 stays in the processor's cache between passes."""
DEVICE_BLOCK_ELEMENTS = 1 << 24
"""The same on a GPU, where what each operation costs beforehand matters more."""


def row_size(shape: Sequence[int]) -> int:
    """Elements in one row, a slice of the first axis."""
    return math.prod(shape[1:])


def row_blocks(shape: Sequence[int], elements: int = BLOCK_ELEMENTS) -> Iterator[slice]:
    """Slices of the first axis that cover it, each of about `elements` elements."""
    step = max(1, elements // max(1, row_size(shape)))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def add_by_channel(sums: Tensor, values: Tensor, rows: slice, axis: int | None) -> None:
    """Add the values of a tensor's `rows`, summed over all axes but `axis` (None: over all)."""
    if axis is None:
        sums += values.sum()
    elif axis % values.ndim:
        sums += values.sum(0)
    else:
        sums[rows] += values.reshape(len(values), -1).sum(1)
