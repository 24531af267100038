"""Methods that merge nothing themselves: weights merged elsewhere, and no merge at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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
class NoMerge(MergeMethod):
    """No merged model: base, experts and references are scored, and that is all."""

    merges: ClassVar[bool] = False
    needs_experts: ClassVar[bool] = False
