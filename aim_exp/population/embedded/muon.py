"""Muon, as torch has it, on any processor.

Its products of matrices are of bfloat16, which torch works out one number at a time where there is no
AVX-512: twenty times as slow as those of float32, and a training takes six minutes, not one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

PRODUCTS = (torch.addmm, torch.mm, torch.matmul, Tensor.matmul, Tensor.__matmul__)


class Muon(torch.optim.Muon):
    """With the products by float32 where that is faster, rounded to bfloat16 as often."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters."""
        if "AVX512" in torch.backends.cpu.get_cpu_capability():
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
