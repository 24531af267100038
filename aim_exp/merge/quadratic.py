"""The quadratic family: `D = (sum c_i d_i G_i) (sum c_i G_i)^+` for each matrix d_i [out, in].

G_i [in, in] says which inputs expert i uses. As a difference to base, with the pseudo-inverse:
what no expert uses keeps base (written for the weights themselves, it would become zero).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from aim_exp.errors import OneOf, Within
from aim_exp.merge.matrices import DataFree, MatrixMethod
from aim_exp.tensors.inputs import TensorInputs

if TYPE_CHECKING:
    from torch import Tensor

    from aim_exp.aim.grams import Grams
    from aim_exp.aim.saliency import Saliency
    from aim_exp.merge.groundwork import Material
    from aim_exp.tensors.sink import Sink

STEPS, RATE = 300, 1e-5
"""Of `solver=adam`, as published."""


@dataclass(frozen=True, kw_only=True)
class Regmean(MatrixMethod):
    """G_i = E x x^T of expert i's inputs on its own texts, c_i = w_i (Jin et al. 2023, 2212.09849).

    What is off its diagonal is multiplied by `shrink`. One layer's G of all experts is there at a
    time. In tensors that are no linear module's of a layer D is what `others` says.
    """

    reads: ClassVar[str | None] = "texts"
    shrink: Annotated[float, Within(0, 1)]

    def write(self, material: Material, sink: Sink) -> None:
        """Layer by layer, all experts beside each other; then all other tensors."""
        from aim_exp.checkpoint.modules import checkpoint_places

        readers = material.readers()
        places = checkpoint_places(readers[0].model.model, material.base.tensors)
        rest = set(material.base.tensors)
        for grams in zip(*(reader.grams() for reader in readers), strict=True):
            names = [n for n in rest if n in places and places[n].parameter in grams[0]]
            used = {n: (places[n].parameter, places[n].expert) for n in names}
            self.write_tensors(material, sink, names, partial(self._of_layer, grams, used))
            rest -= set(names)
        self.write_tensors(material, sink, rest, lambda inputs, part: None)

    def _of_layer(
        self,
        grams: Sequence[Grams],
        used: dict[str, tuple[str, int | None]],
        inputs: TensorInputs,
        part: int | None,
    ) -> Tensor:
        parameter, expert = used[inputs.name]
        axis = grams[0][parameter][0]
        own = [each[parameter][1][part or expert or 0] for each in grams]
        shrunk = [gram * self.shrink + gram.diag().diag() * (1 - self.shrink) for gram in own]
        deltas = self.deltas(inputs, part, weighted=False)
        delta = solve(deltas.mT if axis == 0 else deltas, shrunk, self.weights_in(inputs))
        return delta.T if axis == 0 else delta


@dataclass(frozen=True, kw_only=True)
class Diagonal(MatrixMethod):
    """Each input channel j by how much expert i uses it: G_i = diag(E x_j^2) on its own texts.

    `D_j = sum(w_i m_ij d_ij) / sum(w_i m_ij)`: RegMean with shrink 0, AIM's closest relative.
    """

    reads: ClassVar[str | None] = "moments"

    def write(self, material: Material, sink: Sink) -> None:
        """By the experts' second moments."""
        from aim_exp.aim.saliency import Saliency

        measured = [Saliency.load(folder) for folder in material.statistics]
        self.write_tensors(
            material, sink, material.base.tensors, partial(self._of_tensor, measured)
        )

    def _of_tensor(
        self, measured: Sequence[Saliency], inputs: TensorInputs, part: int | None
    ) -> Tensor | None:
        import torch

        name = inputs.name
        there = [each for each in measured if name in each.moments]
        if not there or inputs.base.ndim == 1:
            return None
        index = ... if part is None else part
        device, axis = inputs.base.device, there[0].axes[name]
        width = inputs.base.shape[axis if part is None else -1]
        unused = torch.zeros(width, dtype=torch.float64)
        moments = torch.stack([
            each.moments[name][index].double() if name in each.moments else unused
            for each in measured
        ]).to(device)  # fmt: skip
        weights = moments.new_tensor(self.weights_in(inputs))
        shares = moments * weights[:, None]
        total = shares.sum(0)
        shares = torch.where(total == 0, 0.0, shares / total)
        deltas = self.deltas(inputs, part, weighted=False)
        along = shares[:, :, None] if axis == 0 and part is None else shares[:, None]
        return (deltas * along).sum(0)


@dataclass(frozen=True, kw_only=True)
class Wudi(DataFree):
    """G_i = d_i^T d_i, c_i = 1 / |d_i|_F^2, the d_i weighted (Cheng et al. 2025, 2503.08099).

    `solver=adam` is as published: 300 steps of 1e-5 from the sum of the deltas. That moves an
    element by at most 0.003, whatever the size of the deltas: another model than the solution.
    """

    solver: Annotated[str, OneOf("closed_form", "adam")]

    def direction(self, deltas: Tensor) -> Tensor:
        """As defined."""
        import torch

        squares = deltas.square().sum((1, 2)).tolist()
        used = [(d, 1 / s) for d, s in zip(deltas, squares, strict=True) if s]
        total = deltas.sum(0)
        if not used:
            return total
        own, shares = zip(*used, strict=True)
        if self.solver == "closed_form":
            return solve(own, [d.T @ d for d in own], shares)
        left, right = sums(own, [d.T @ d for d in own], shares)
        moved = total.clone().requires_grad_()
        adam = torch.optim.Adam([moved], lr=RATE)
        for _ in range(STEPS):
            moved.grad = 2 * (moved.detach() @ right - left)
            adam.step()
        return moved.detach()


def solve(deltas: Sequence[Tensor] | Tensor, grams: Sequence[Tensor], c: Sequence[float]) -> Tensor:
    """`(sum c_i d_i G_i) (sum c_i G_i)^+`, float64 [out, in]."""
    import torch

    left, right = sums(deltas, grams, c)
    values, vectors = torch.linalg.eigh(right)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    vectors = vectors[:, kept]
    return left @ vectors / values[kept] @ vectors.T


def sums(
    deltas: Sequence[Tensor] | Tensor, grams: Sequence[Tensor], c: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """`sum c_i d_i G_i` and `sum c_i G_i`."""
    import torch

    left, right = torch.zeros_like(deltas[0]), torch.zeros_like(grams[0])
    for delta, gram, share in zip(deltas, grams, c, strict=True):
        left += share * (delta @ gram)
        right += share * gram
    return left, right
