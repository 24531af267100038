"""What experts agree on: by how much each needs an element (consensus), or by variance (SCE)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from aim_exp.errors import Within
from aim_exp.merge.method import Kernel, MergeMethod
from aim_exp.merge.task_vectors import TaskArithmetic, WeightedDelta
from aim_exp.tensors.inputs import SPARE, TensorInputs

if TYPE_CHECKING:
    from torch import Tensor

    from aim_exp.tensors.scratch import Scratch


@dataclass(frozen=True, kw_only=True)
class ConsensusTa(TaskArithmetic):
    """Task arithmetic where at least `k` experts need an element (Wang et al. 2024, 2405.07813).

    With t = sum(w_i d_i), expert i needs it where |w_i d_i| > mask_lambda |t - w_i d_i|.
    """

    keeps_rank: ClassVar[bool] = False
    mask_lambda: Annotated[float, Within(0)]
    k: Annotated[int, Within(0)]

    def combine(self, delta: WeightedDelta, weights: list[float], scratch: Scratch) -> Tensor:
        """The sum, with zeros where too few need it."""
        deltas = [delta(index, f"delta {index}") for index in range(len(weights))]
        total = scratch("total", deltas[0].shape).copy_(deltas[0])
        for each in deltas[1:]:
            total.add_(each)
        count = scratch("needed by", total.shape).zero_()
        for each in deltas:
            others = scratch(SPARE, total.shape).copy_(total).sub_(each).abs_()
            count.add_(each.abs_().gt(others.mul_(self.mask_lambda)))
        return total.mul_(count.ge_(self.k))


@dataclass(frozen=True, kw_only=True)
class Sce(MergeMethod):
    """Select, calculate, erase (Wan et al. 2024, FuseChat, arXiv 2408.07990).

    Of the elements whose variance over the experts is not zero the share `select_topk` with the
    largest stays, of equal ones the first; c_i = mean(d_i^2) over all elements, divided by the
    sum over i (equal where that is zero). An element is `sum(c_i d_i) / sum(c_i)` over the
    experts whose sign is that of `sum(d_i)`.
    """

    from_base: ClassVar[bool] = True
    select_topk: Annotated[float, Within(0, 1)]

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """Which elements stay, and how much each expert counts; then any rows."""
        from aim_exp.merge.signs import elect_and_sum

        selected = self._selected(inputs) if self.select_topk < 1 else None

        def deltas(rows: slice) -> list[Tensor]:
            by_expert = [inputs.delta(i, rows, f"delta {i}") for i in range(len(inputs.experts))]
            return by_expert if selected is None else [d.mul_(selected[rows]) for d in by_expert]

        squares = [0.0] * len(inputs.experts)
        for rows in inputs.blocks():
            for i, delta in enumerate(deltas(rows)):
                squares[i] += delta.double().square_().sum().item()
        total = sum(squares)
        shares = [each / total for each in squares] if total else [1 / len(squares)] * len(squares)

        sums = partial(
            elect_and_sum, weights=shares, scratch=inputs.scratch, normalize=True, factors=shares
        )
        return lambda rows: sums(deltas(rows))

    def _selected(self, inputs: TensorInputs) -> Tensor:
        """Which elements stay, bool in the shape of the tensor."""
        import torch

        parts = []
        for rows in inputs.blocks():
            deltas = [inputs.delta(i, rows, f"delta {i}") for i in range(len(inputs.experts))]
            parts.append(torch.stack(deltas).var(0, correction=0).view(-1))
        variance = torch.cat([*parts, inputs.base.new_zeros(0, dtype=torch.float32)])
        k = int(int(variance.count_nonzero()) * self.select_topk)
        selected = torch.zeros_like(variance, dtype=torch.bool)
        selected[variance.argsort(descending=True, stable=True)[:k]] = True
        return selected.view(inputs.base.shape)
