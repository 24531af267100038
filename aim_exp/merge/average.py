"""Weighted averages of the experts themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aim_exp.merge.method import Kernel, WeightedMethod
from aim_exp.tensors.inputs import SPARE, TensorInputs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Linear(WeightedMethod):
    """`sum(w_i x_i) / sum(w_i)` over the experts ("model soup", Wortsman et al. 2022)."""

    divides: ClassVar[bool] = True
    keeps_rank: ClassVar[bool] = True

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """Elementwise: nothing to prepare."""
        weights = self.weights_in(inputs)
        total = sum(weights)

        def merge(rows: slice) -> Tensor:
            shape = inputs.base[rows].shape
            merged = inputs.rows(0, rows, inputs.scratch("merged", shape)).mul_(weights[0])
            for index, weight in enumerate(weights[1:], start=1):
                merged.add_(inputs.rows(index, rows, inputs.scratch(SPARE, shape)), alpha=weight)
            return merged.div_(total)

        return merge
