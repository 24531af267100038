"""The sign election of TIES (Yadav et al. 2023): how task vectors that disagree are combined."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aim_exp.tensors.scratch import Scratch


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
