"""What a merge method is: a few settings, and a kernel made for each tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

Kernel = Callable[[slice], "Tensor"]
"""Rows (a slice of the first axis) to the merged rows, float32, newly allocated."""

Weight = float | Mapping[str, float]
"""One number for every expert, or one per expert by name."""


@dataclass(frozen=True)
class TensorInputs:
    """One tensor of base and of each expert to merge: same shape, at least one axis.

    The tensors are views on the files, in the dtype stored there; nothing is read before
    a kernel asks for rows.
    """

    name: str
    base: Tensor
    experts: tuple[Tensor, ...]
    expert_names: tuple[str, ...]
    seed: int

    def rows(self, expert: int, rows: slice) -> Tensor:
        """A copy of an expert's rows as float32; NonFiniteError for NaN or infinity."""
        return finite(_copy(self.experts[expert][rows]), self.expert_names[expert], self.name)

    def base_rows(self, rows: slice) -> Tensor:
        """A copy of base's rows as float32; NonFiniteError for NaN or infinity."""
        return finite(_copy(self.base[rows]), "base", self.name)


def _copy(rows: Tensor) -> Tensor:
    """A float32 copy, also of what is float32: kernels work in place."""
    import torch

    return rows.to(torch.float32, copy=True)


def finite(block: Tensor, model: str, tensor: str) -> Tensor:
    """`block` itself, or NonFiniteError naming `model` and `tensor`."""
    import torch

    from aim_exp.errors import NonFiniteError

    # One pass suffices: a sum with a NaN or an infinity in it is not finite. A finite block
    # may overflow the sum, hence the second look.
    if not torch.isfinite(block.sum()) and not torch.isfinite(block).all():
        raise NonFiniteError(f"{model}: tensor {tensor} holds NaN or infinite values")
    return block


@dataclass(frozen=True, kw_only=True)
class MergeMethod:
    """Base of every method: a frozen dataclass whose fields are its settings.

    A method says what is wrong with its settings (`problems`), what its result depends on
    (`spec`), and makes a `Kernel` for each tensor (`prepare`): whatever needs the whole
    tensor, such as a threshold, is computed there, so that rows can then be merged in
    blocks of any size.
    """

    stochastic: ClassVar[bool] = False
    """Whether masks are drawn: the result then depends on the seed and the experts' names."""
    merges: ClassVar[bool] = True
    """Whether there is a merged model at all."""
    most_experts: ClassVar[int | None] = None
    """How many experts it can merge; None: any number."""

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """What is wrong with the settings for this population, `key=value: why; fix` each."""
        if self.most_experts is None or len(merged) <= self.most_experts:
            return []
        return [
            f"population.merge=[{','.join(merged)}]: {type(self).__name__} merges at most "
            f"{self.most_experts} experts; name fewer"
        ]

    def spec(self, merged: Sequence[str]) -> dict[str, Any]:
        """The settings that the result depends on, as plain data for the content key."""
        return {"class": f"{type(self).__module__}.{type(self).__qualname__}", **asdict(self)}

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """A kernel for one tensor."""
        raise AssertionError(f"{type(self).__name__} merges nothing")


@dataclass(frozen=True, kw_only=True)
class WeightedMethod(MergeMethod):
    """A method with a weight for each expert."""

    weight: Weight

    def weights(self, merged: Sequence[str]) -> list[float]:
        """The weight of each expert of `merged`, in order."""
        if isinstance(self.weight, Mapping):
            return [float(self.weight[name]) for name in merged]
        return [float(self.weight)] * len(merged)

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """Weights that are no numbers, name no expert, or leave one out."""
        found = super().problems(experts, merged)
        if not isinstance(self.weight, Mapping):
            return found + number_problem("method.weight", self.weight)
        for name, value in self.weight.items():
            found += number_problem(f"method.weight.{name}", value)
            if name not in experts:
                found.append(f"method.weight.{name}: no such expert; there are {_list(experts)}")
        missing = [name for name in merged if name not in self.weight]
        if missing:
            found.append(f"method.weight: no weight for {_list(missing)}; give one for each expert")
        return found

    def spec(self, merged: Sequence[str]) -> dict[str, Any]:
        """The settings, the weights as a list in the order of the experts."""
        return {**super().spec(merged), "weight": self.weights(merged)}


def number_problem(
    key: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> list[str]:
    """A problem if `value` is no finite number in [low, high] (or (low, high])."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [f"{key}={value}: must be a number"]
    inside = (low < value if open_low else low <= value) and value <= high
    if math.isfinite(value) and inside:
        return []
    if low == -math.inf:
        return [f"{key}={value}: must be finite"]
    return [f"{key}={value}: must be in {'(' if open_low else '['}{low:g}, {high:g}]"]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
