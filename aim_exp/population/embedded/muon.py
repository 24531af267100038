"""Muon, as torch has it, whose products are of bfloat16, on any processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aim_exp.population.precision import has_quick_bfloat16

PRODUCTS = (torch.addmm, torch.mm, torch.matmul, Tensor.matmul, Tensor.__matmul__)


class Muon(torch.optim.Muon):
    """With the products by float32 where that is faster, rounded to bfloat16 as often."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters."""
        if has_quick_bfloat16():
            return super().step(closure)
        with _Float32Products():
            return super().step(closure)


class _Float32Products(TorchFunctionMode):
    """Each of `PRODUCTS` in float32, its result in the dtype of what it is of."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What torch calls in the place of `func`."""
        if func not in PRODUCTS:
            return func(*args, **(kwargs or {}))
        wide = [each.float() if isinstance(each, Tensor) else each for each in args]
        return func(*wide, **(kwargs or {})).to(args[0].dtype)
