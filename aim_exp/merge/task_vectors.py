"""The task-vector family: `base + scale * combine(weight_i * sparsify(x_i - base))`.

A task vector is an expert minus base (Ilharco et al. 2023). The methods differ in how they
sparsify it and in how they combine several: plain sum, or the sign election of TIES (Yadav
et al. 2023).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from aim_exp.checkpoint.varying import Setting, numbers, setting_at, setting_problems
from aim_exp.errors import FLOAT32, OneOf, Within, number_problem
from aim_exp.merge.method import Kernel, MergeMethod, WeightedMethod, per_expert
from aim_exp.tensors.inputs import SPARE, TensorInputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from aim_exp.merge.groundwork import Material
    from aim_exp.merge.sparsify import Sparsifier
    from aim_exp.merge.thresholds import ModelTrim
    from aim_exp.tensors.scratch import Scratch

WeightedDelta = Callable[[int, str], "Tensor"]
"""An expert's number and the name of a buffer to what is kept of its delta, times its weight."""

TRIMS_FILE = "trims.json"


@dataclass(frozen=True, kw_only=True)
class TaskArithmetic(WeightedMethod):
    """`base + scale * sum(w_i d_i)` (Ilharco et al. 2023), and the frame of the family."""

    from_base: ClassVar[bool] = True
    keeps_rank: ClassVar[bool] = True
    scale: Annotated[float, FLOAT32]

    def sparsifiers(self, inputs: TensorInputs) -> list[Sparsifier]:
        """What to keep of each task vector; none: all of it."""
        return []

    def combine(self, delta: WeightedDelta, weights: list[float], scratch: Scratch) -> Tensor:
        """The sum of the weighted deltas."""
        total = delta(0, "total")
        for index in range(1, len(weights)):
            total.add_(delta(index, SPARE))
        return total

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """Thresholds and scales for the whole tensor first, then any rows."""
        weights = self.weights_in(inputs)
        sparsifiers = self.sparsifiers(inputs)

        def weighted(rows: slice, expert: int, buffer: str) -> Tensor:
            delta, factor = inputs.delta(expert, rows, buffer), weights[expert]
            if sparsifiers:
                sparsifiers[expert].keep(delta, rows)
                factor *= sparsifiers[expert].rescale
            return delta if factor == 1 else delta.mul_(factor)

        def merge(rows: slice) -> Tensor:
            total = self.combine(partial(weighted, rows), weights, inputs.scratch)
            return total if self.scale == 1 else total.mul_(self.scale)

        return merge


@dataclass(frozen=True, kw_only=True)
class SparseMethod(TaskArithmetic):
    """A task-vector method that keeps the share `density` of each task vector."""

    keeps_rank: ClassVar[bool] = False
    density: Setting

    @property
    def varying(self) -> Mapping[str, Setting]:
        """Weight and density."""
        return {**super().varying, "method.density": self.density}

    def sparsifiers(self, inputs: TensorInputs) -> list[Sparsifier]:
        """Each expert's, by its density in the tensor."""
        place = (inputs.name, inputs.depth)
        densities = [setting_at(self.density, *place, expert) for expert in inputs.expert_names]
        return [self.sparsifier(inputs, i, density) for i, density in enumerate(densities)]

    def sparsifier(self, inputs: TensorInputs, expert: int, density: float) -> Sparsifier:
        """What to keep of the task vector of expert number `expert`: the largest magnitudes."""
        from aim_exp.merge.sparsify import top_k

        return top_k(inputs, expert, density)

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """Also a density outside (0, 1]."""
        problems = super().problems(experts, merged)
        number = partial(number_problem, low=0, high=1, open_low=True)
        return problems + setting_problems("method.density", self.density, number, experts, merged)

    def spec(self, merged: Sequence[str]) -> dict[str, Any]:
        """The settings, the density as a list in the order of the experts where it varies."""
        own = per_expert(self.density, merged)
        return {**super().spec(merged), "density": own[0] if own == own[:1] * len(own) else own}


@dataclass(frozen=True, kw_only=True)
class SignElection(SparseMethod):
    """Combine by sign: an element keeps those deltas whose sign is that of their weighted sum.

    `normalize` divides by the sum of the kept weights, which gives a mean.
    """

    normalize: bool

    def combine(self, delta: WeightedDelta, weights: list[float], scratch: Scratch) -> Tensor:
        """TIES's elect and disjoint merge; a sum of zero elects plus."""
        from aim_exp.merge.signs import elect_and_sum

        deltas = [delta(index, f"delta {index}") for index in range(len(weights))]
        return elect_and_sum(deltas, weights, scratch, normalize=self.normalize)


@dataclass(frozen=True, kw_only=True)
class Ties(SignElection):
    """Trim to the largest magnitudes, elect signs, merge (Yadav et al. 2023).

    The largest of each tensor, or of the whole task vector as in the paper (`trim_scope`).
    """

    trim_scope: Annotated[str, OneOf("tensor", "model")]

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """Also densities that vary, of a whole model."""
        problems = super().problems(experts, merged)
        if not problems and self.trim_scope == "model":
            uniform = all(isinstance(own, float) for own in per_expert(self.density, merged))
            if not uniform:
                problems.append(
                    f"method.density={self.density}: of a whole model it is one number for each "
                    "expert; set method.trim_scope=tensor"
                )
        return problems

    def groundwork(self, merged: Sequence[str]) -> dict[str, Any] | None:
        """The density, where thresholds are the whole model's."""
        return {"trim": self.spec(merged)["density"]} if self.trim_scope == "model" else None

    def work_out(self, material: Material, folder: Path) -> None:
        """Each expert's threshold."""
        from aim_exp.merge.thresholds import model_trim

        trims = [
            asdict(model_trim(material.base, each, setting_at(self.density, "", 0.0, each.label)))
            for each in material.experts
        ]
        (folder / TRIMS_FILE).write_text(json.dumps(trims))

    def upon(self, folder: Path) -> MergeMethod:
        """The same with those thresholds."""
        from aim_exp.merge.thresholds import ModelTrim

        trims = [ModelTrim(**trim) for trim in json.loads((folder / TRIMS_FILE).read_text())]
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return _TrimmedTies(**settings, trims=trims)


@dataclass(frozen=True, kw_only=True)
class _TrimmedTies(Ties):
    trims: Sequence[ModelTrim]

    def sparsifier(self, inputs: TensorInputs, expert: int, density: float) -> Sparsifier:
        """What is among the largest of the whole."""
        from aim_exp.merge.sparsify import trimmed

        return trimmed(inputs, self.trims[expert])


@dataclass(frozen=True, kw_only=True)
class Breadcrumbs(SparseMethod):
    """`base + scale * sum(w_i kept_i)`, without outliers (Davari and Belilovsky 2024, 2312.06795).

    Of n elements of a task vector the floor(gamma n) largest go, and the floor(density n) below
    them stay; of equal magnitudes at a threshold the first count as the largest.
    """

    gamma: Annotated[float, Within(0, 1)]

    def sparsifier(self, inputs: TensorInputs, expert: int, density: float) -> Sparsifier:
        """The magnitudes between outliers and noise."""
        from aim_exp.merge.sparsify import without_outliers

        return without_outliers(inputs, expert, density, self.gamma)


@dataclass(frozen=True, kw_only=True)
class BreadcrumbsTies(Breadcrumbs, SignElection):
    """Drop outliers and noise, then elect signs (Breadcrumbs with TIES)."""


@dataclass(frozen=True, kw_only=True)
class RandomDrop(SparseMethod):
    """DARE's sparsifier: drop at random, rescale what is kept (Yu et al. 2024).

    `rescale`: `inv_density` (the paper: 1 / probability), `l1` (sum |d| / sum |kept|), None.
    """

    rescale: Annotated[str | None, OneOf("inv_density", "l1", None)]

    @property
    def stochastic(self) -> bool:
        """Unless all is kept."""
        return min(numbers(self.density)) < 1

    def sparsifier(self, inputs: TensorInputs, expert: int, density: float) -> Sparsifier:
        """A random mask."""
        from aim_exp.merge.sparsify import random_drop

        return random_drop(inputs, expert, density, self.rescale)


@dataclass(frozen=True, kw_only=True)
class DareLinear(RandomDrop):
    """Drop and rescale, then the weighted sum (DARE with task arithmetic)."""


@dataclass(frozen=True, kw_only=True)
class DareTies(RandomDrop, SignElection):
    """Drop and rescale, then elect signs (DARE with TIES)."""


@dataclass(frozen=True, kw_only=True)
class DellaLinear(RandomDrop):
    """DELLA's sparsifier, then the weighted sum (Deep et al. 2024, arXiv 2406.11617).

    An element stays with probability density - epsilon + 2 epsilon r, r the rank of its magnitude
    in its row in [0, 1], and is divided by that probability (`rescale=inv_density`).
    """

    epsilon: Annotated[float, Within(0, 1)]

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """Also an epsilon that makes a probability none."""
        if problems := super().problems(experts, merged):
            return problems
        room = min((min(d, 1 - d) for d in numbers(self.density) if d < 1), default=1.0)
        if self.epsilon < room:
            return []
        return [
            f"method.epsilon={self.epsilon}: must be below {room:g}, so that density - epsilon "
            "and density + epsilon are probabilities"
        ]

    def sparsifier(self, inputs: TensorInputs, expert: int, density: float) -> Sparsifier:
        """A random mask by the ranks of magnitudes."""
        from aim_exp.merge.sparsify import ranked_drop

        return ranked_drop(inputs, expert, density, self.epsilon, self.rescale)


@dataclass(frozen=True, kw_only=True)
class Della(DellaLinear, SignElection):
    """DELLA's sparsifier, then TIES's election."""
