"""What a kernel is given: one tensor of base and of each expert, in blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aim_exp.errors import NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

    from aim_exp.tensors.scratch import Scratch

SPARE = "spare"
"""The scratch buffer that is anyone's: what is in it is good for the next step only."""


def _new_scratch() -> Scratch:
    from aim_exp.tensors.scratch import Scratch

    return Scratch()


@dataclass
class TensorInputs:
    """One tensor of base and of each expert to merge: same shape, at least one axis.

    The tensors are in the dtype stored, views on the files or copies on the device of
    `scratch`; nothing of a view is read before a kernel asks for rows. Used by one thread at
    a time.
    """

    name: str
    base: Tensor
    experts: tuple[Tensor, ...]
    expert_names: tuple[str, ...]
    seed: int
    scratch: Scratch = field(default_factory=_new_scratch)
    depth: float = 0.0
    """Of the tensor in its model, from 0 to 1: see `checkpoint.varying.depths`."""
    _widened: slice | None = field(default=None, init=False)

    def blocks(self) -> Iterator[slice]:
        """The rows of the whole tensor, cut as suits the device: always the same."""
        from aim_exp.tensors.blocks import DEVICE_BLOCK_ELEMENTS, row_blocks

        if self.scratch.on_cpu:
            return row_blocks(self.base.shape)
        return row_blocks(self.base.shape, DEVICE_BLOCK_ELEMENTS)

    def base_rows(self, rows: slice) -> Tensor:
        """Base's rows as float32, read-only: good until other rows are asked for."""
        block = self.base[rows]
        widened = self.scratch("base", block.shape)
        if rows != self._widened:
            widened.copy_(block)
            self._widened = rows
        return widened

    def rows(self, expert: int, rows: slice, out: Tensor | None = None) -> Tensor:
        """An expert's rows as float32, to work on in place.

        In new memory and checked, NonFiniteError for NaN or infinity; or in `out`, unchecked.
        """
        block = self.experts[expert][rows]
        if out is not None:
            return out.copy_(block)
        import torch

        copied = block.to(torch.float32, copy=True)
        return finite(copied, self.expert_names[expert], self.name)

    def delta(self, expert: int, rows: slice, buffer: str) -> Tensor:
        """An expert minus base, float32, in the scratch buffer called `buffer`; unchecked."""
        base = self.base_rows(rows)
        return self.rows(expert, rows, self.scratch(buffer, base.shape)).sub_(base)

    def check(self) -> None:
        """NonFiniteError naming the first model with NaN or infinity in the tensor, if any."""
        finite(self.base, "base", self.name)
        for name, tensor in zip(self.expert_names, self.experts, strict=True):
            finite(tensor, name, self.name)


def finite(block: Tensor, model: str, tensor: str) -> Tensor:
    """`block` itself, or NonFiniteError naming `model` and `tensor`."""
    if not all_finite(block):
        raise NonFiniteError(f"{model}: tensor {tensor} holds NaN or infinite values")
    return block


def all_finite(block: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    import torch

    # One pass suffices: a sum with a NaN or an infinity in it is not finite. A finite block
    # may overflow the sum, hence the second look.
    return math.isfinite(block.sum().item()) or bool(torch.isfinite(block).all())
