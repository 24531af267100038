"""Methods that merge nothing themselves: weights merged elsewhere, one model's, none at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aim_exp.checkpoint.varying import first_like, is_filter
from aim_exp.merge.method import Kernel, MergeMethod
from aim_exp.tensors.inputs import TensorInputs


@dataclass(frozen=True, kw_only=True)
class Given(MergeMethod):
    """Weights that any other tool has merged, read from `path` (a folder or a hub id).

    The pipeline hands the checkpoint to the kernel in the place of the experts.
    """

    needs_experts: ClassVar[bool] = False
    path: str

    def spec(self, merged: Sequence[str]) -> dict[str, Any]:
        """Nothing of its own: the identity of the weights says it all."""
        return {"class": f"{type(self).__module__}.{type(self).__qualname__}"}

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """The rows as they are."""
        given = inputs.experts[0]
        return lambda rows: inputs.rows(0, rows, inputs.scratch("given", given[rows].shape))


@dataclass(frozen=True, kw_only=True)
class Whole(MergeMethod):
    """The tensors of `model`, which is base or one of the experts."""

    model: str

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """The rows as they are."""
        models = dict(zip(inputs.expert_names, inputs.experts, strict=True))
        tensor = models.get(self.model, inputs.base)
        return lambda rows: inputs.scratch("whole", tensor[rows].shape).copy_(tensor[rows])


@dataclass(frozen=True, kw_only=True)
class MergedInPart(MergeMethod):
    """`method`, but for the tensors that `take` says are another model's: {filter: model}.

    The first filter that is like a name counts; None stands for `method`.
    """

    method: MergeMethod
    take: Mapping[str, str | None]

    def at(self, name: str) -> MergeMethod:
        """The method, or the model's tensors."""
        key = first_like(self.take, name)
        model = None if key is None else self.take[key]
        return self.method if model is None else Whole(model=model)


def take_problems(take: Any, models: Sequence[str]) -> list[str]:
    """What is wrong with a table of tensors to take from one of `models`."""
    shape = "{filter: model}"
    if not isinstance(take, Mapping | None):
        return [f"take={take}: must be a table {shape}, or null"]
    problems = [
        f"take.{name}: must be a filter of tensor names, as '*.{name}.*'"
        for name in take or {}
        if not is_filter(name)
    ]
    return problems + [
        f"take.{name}={model}: no such model; there are {', '.join(models)}, and null for the merge"
        for name, model in (take or {}).items()
        if model not in (*models, None)
    ]


@dataclass(frozen=True, kw_only=True)
class NoMerge(MergeMethod):
    """No merged model: base, experts and references are scored, and that is all."""

    merges: ClassVar[bool] = False
    needs_experts: ClassVar[bool] = False
