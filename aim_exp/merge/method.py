"""What a merge method is: a few settings, and a kernel made for each tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from aim_exp.checkpoint.varying import (
    Setting,
    idle_problems,
    of_expert,
    setting_at,
    setting_problems,
)
from aim_exp.errors import LARGEST, number_problem, setting_limits
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
    keeps_rank: ClassVar[bool] = False
    """Whether a merge of adapters is an adapter: each output a combination of the experts'."""
    keeps_direction: ClassVar[bool] = False
    """Whether its groundwork is as large as a model in float32."""

    @property
    def stochastic(self) -> bool:
        """Whether masks are drawn: the result then depends on the seed and the experts' names."""
        return False

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """What is wrong with the settings for this population, `key=value: why; fix` each.

        Here by the limits in their annotations, and by how many experts there are.
        """
        problems, name = setting_limits("method", self), type(self).__name__
        fewest, most = self.fewest_experts, self.most_experts
        if self.needs_experts and not merged:
            shape = "{name: DIR or hub id, ...}"
            text = f"population.experts: {name} merges experts, and there are none; give {shape}"
            return [*problems, text]
        if not self.needs_experts or fewest <= len(merged) <= (most or len(merged)):
            return problems
        few = len(merged) < fewest
        bound = f"least {fewest} experts; name more" if few else f"most {most} experts; name fewer"
        return [*problems, f"population.merge=[{','.join(merged)}]: {name} merges at {bound}"]

    @property
    def given(self) -> Mapping[str, Path]:
        """Files by expert that are given in the place of what it would measure."""
        return {}

    @property
    def varying(self) -> Mapping[str, Setting]:
        """The settings that may vary over experts, depth and tensors, by key."""
        return {}

    def tensor_problems(self, merged: Sequence[str], depths: Mapping[str, float]) -> list[str]:
        """What is wrong with the settings for these tensors, by name, with their depth."""
        names = [*depths]
        return [p for key, value in self.varying.items() for p in idle_problems(key, value, names)]

    def at(self, name: str) -> MergeMethod:
        """What merges the tensor `name`: this, unless it leaves it to another."""
        return self

    def weights(self, merged: Sequence[str], name: str, depth: float) -> list[float]:
        """How much each expert of `merged` counts in the tensor `name`, in order.

        A token that base lacks has only this. Equally, unless a method says otherwise.
        """
        return [1.0] * len(merged)

    def weights_in(self, inputs: TensorInputs) -> list[float]:
        """The same of a tensor at hand."""
        return self.weights(inputs.expert_names, inputs.name, inputs.depth)

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
    weight: Setting

    @property
    def varying(self) -> Mapping[str, Setting]:
        """The weight."""
        return {"method.weight": self.weight}

    def weights(self, merged: Sequence[str], name: str, depth: float) -> list[float]:
        """The weight of each expert of `merged`, in order."""
        return [setting_at(self.weight, name, depth, expert) for expert in merged]

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """Weights that are no numbers, name no expert, leave one out, or add up to zero."""
        problems = super().problems(experts, merged)
        number = partial(number_problem, low=-LARGEST, high=LARGEST)
        problems += setting_problems("method.weight", self.weight, number, experts, merged)
        return problems or self._zero_problems(merged, {"": 0.0})

    def tensor_problems(self, merged: Sequence[str], depths: Mapping[str, float]) -> list[str]:
        """Also weights that add up to zero."""
        return super().tensor_problems(merged, depths) or self._zero_problems(merged, depths)

    def _zero_problems(self, merged: Sequence[str], depths: Mapping[str, float]) -> list[str]:
        for name, depth in depths.items() if self.divides else ():
            if sum(self.weights(merged, name, depth)) == 0:
                where = f" in {name}" if name else ""
                key = f"method.weight={self.weight}"
                return [f"{key}: the weights must not add up to zero{where}"]
        return []

    def spec(self, merged: Sequence[str]) -> dict[str, Any]:
        """The settings, the weights as a list in the order of the experts."""
        return {**super().spec(merged), "weight": per_expert(self.weight, merged)}


def per_expert(setting: Setting, merged: Sequence[str]) -> list[Any]:
    """A setting as plain data for a content key: that of each expert, in order."""
    return [of_expert(setting, name) for name in merged]
