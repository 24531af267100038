"""What a merge method is: a few settings, and a kernel made for each tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from aim_exp.merge.scratch import Scratch

Kernel = Callable[[slice], "Tensor"]
"""Rows (a slice of the first axis) to the merged rows, float32, good until the next call.

Where the method says `from_base`, to what must be added to base's rows instead.

NaN and infinity in what a kernel reads must come out again, as they do of arithmetic: the
result is what is looked at. What a comparison drops is checked by `TensorInputs.rows`.
"""

SPARE = "spare"
"""The scratch buffer that is anyone's: what is in it is good for the next step only."""

Weight = float | Mapping[str, float]
"""One number for every expert, or one per expert by name."""


def _new_scratch() -> Scratch:
    from aim_exp.merge.scratch import Scratch

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
    _widened: slice | None = field(default=None, init=False)

    def blocks(self) -> Iterator[slice]:
        """The rows of the whole tensor, cut as suits the device: always the same."""
        from aim_exp.merge.blocks import DEVICE_BLOCK_ELEMENTS, row_blocks

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
    from aim_exp.errors import NonFiniteError

    if not all_finite(block):
        raise NonFiniteError(f"{model}: tensor {tensor} holds NaN or infinite values")
    return block


def all_finite(block: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    import torch

    # One pass suffices: a sum with a NaN or an infinity in it is not finite. A finite block
    # may overflow the sum, hence the second look.
    return math.isfinite(block.sum().item()) or bool(torch.isfinite(block).all())


@dataclass(frozen=True, kw_only=True)
class MergeMethod:
    """Base of every method: a frozen dataclass whose fields are its settings.

    A method says what is wrong with its settings (`problems`), what its result depends on
    (`spec`), and makes a `Kernel` for each tensor (`prepare`): whatever needs the whole
    tensor, such as a threshold, is computed there, so that rows can then be merged in
    blocks of any size.
    """

    merges: ClassVar[bool] = True
    """Whether there is a merged model at all."""
    from_base: ClassVar[bool] = False
    """Whether kernels return the difference to base, which AIM then need not compute."""
    needs_experts: ClassVar[bool] = True
    """Whether it merges experts of the population at all."""
    most_experts: ClassVar[int | None] = None
    """How many experts it can merge; None: any number."""

    @property
    def stochastic(self) -> bool:
        """Whether masks are drawn: the result then depends on the seed and the experts' names."""
        return False

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """What is wrong with the settings for this population, `key=value: why; fix` each."""
        if self.needs_experts and not merged:
            shape = "{name: DIR or hub id, ...}"
            name = type(self).__name__
            return [f"population.experts: {name} merges experts, and there are none; give {shape}"]
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
