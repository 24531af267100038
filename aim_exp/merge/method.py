"""What a merge method is: a few settings, and a kernel made for each tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aim_exp.errors import LARGEST, number_problem
from aim_exp.tensors.inputs import TensorInputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from aim_exp.merge.groundwork import Material

Kernel = Callable[[slice], "Tensor"]
"""Rows (a slice of the first axis) to the merged rows, float32, good until the next call.

Where the method says `from_base`, to what must be added to base's rows instead.

NaN and infinity in what a kernel reads must come out again, as they do of arithmetic: the
result is what is looked at. What a comparison drops is checked by `TensorInputs.rows`.
"""

Weight = float | Mapping[str, float]
"""One number for every expert, or one per expert by name."""


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
    fewest_experts: ClassVar[int] = 1
    most_experts: ClassVar[int | None] = None
    """How many experts it can merge; None: any number."""
    reads: ClassVar[str | None] = None
    """What its groundwork needs of each expert on its own texts: `moments`, `fisher`, `texts`."""
    keeps_direction: ClassVar[bool] = False
    """Whether its groundwork is as large as a model in float32."""

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
        fewest, most = self.fewest_experts, self.most_experts
        if not self.needs_experts or fewest <= len(merged) <= (most or len(merged)):
            return []
        few = len(merged) < fewest
        bound = (
            f"at least {fewest} experts; name more"
            if few
            else f"at most {most} experts; name fewer"
        )
        return [f"population.merge=[{','.join(merged)}]: {type(self).__name__} merges {bound}"]

    @property
    def given(self) -> Mapping[str, Path]:
        """Files by expert that are given in the place of what it would measure."""
        return {}

    def weights(self, merged: Sequence[str]) -> list[float]:
        """How much each expert of `merged` counts, in order: a token that base lacks has only this.

        Equally, unless a method says otherwise.
        """
        return [1.0] * len(merged)

    def spec(self, merged: Sequence[str]) -> dict[str, Any]:
        """The settings that the result depends on, as plain data for the content key."""
        return {"class": f"{type(self).__module__}.{type(self).__qualname__}", **asdict(self)}

    def groundwork(self, merged: Sequence[str]) -> dict[str, Any] | None:
        """The settings that what is worked out of the whole models first depends on.

        It is done once for all merges that share them. None: nothing is.
        """
        return None

    def work_out(self, material: Material, folder: Path) -> None:
        """Do the groundwork, and leave in `folder` what comes of it."""
        raise AssertionError(f"{type(self).__name__} has no groundwork")

    def upon(self, folder: Path) -> MergeMethod:
        """What merges by the groundwork in `folder`."""
        raise AssertionError(f"{type(self).__name__} has no groundwork")

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """A kernel for one tensor."""
        raise AssertionError(f"{type(self).__name__} merges nothing")


@dataclass(frozen=True, kw_only=True)
class WeightedMethod(MergeMethod):
    """A method with a weight for each expert."""

    divides: ClassVar[bool] = False
    """Whether it divides by the sum of the weights."""
    weight: Weight

    def weights(self, merged: Sequence[str]) -> list[float]:
        """The weight of each expert of `merged`, in order."""
        if isinstance(self.weight, Mapping):
            return [float(self.weight[name]) for name in merged]
        return [float(self.weight)] * len(merged)

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """Weights that are no numbers, name no expert, leave one out, or add up to zero."""
        problems = super().problems(experts, merged)
        if not isinstance(self.weight, Mapping):
            problems += number_problem("method.weight", self.weight, -LARGEST, LARGEST)
        else:
            for name, value in self.weight.items():
                key = f"method.weight.{name}"
                problems += number_problem(key, value, -LARGEST, LARGEST)
                if name not in experts:
                    problems.append(f"{key}: no such expert; there are {_list(experts)}")
            if missing := _list([name for name in merged if name not in self.weight]):
                problems.append(f"method.weight: no weight for {missing}; give one for each expert")
        if self.divides and not problems and sum(self.weights(merged)) == 0:
            problems.append(f"method.weight={self.weight}: the weights must not add up to zero")
        return problems

    def spec(self, merged: Sequence[str]) -> dict[str, Any]:
        """The settings, the weights as a list in the order of the experts."""
        return {**super().spec(merged), "weight": self.weights(merged)}


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
