"""Methods in a space that the experts share: deltas in one basis, merged there as TIES does.

Where an expert is an adapter its delta comes as the factors that training left, scale B and A: it
has their rank, and no rounding of base is in it. What else differs from base is split evenly by
its singular values.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from aim_exp.merge.matrices import Matrices, MatrixMethod, is_matrix
from aim_exp.merge.task_vectors import SignElection
from aim_exp.tensors.inputs import TensorInputs

if TYPE_CHECKING:
    from torch import Tensor

    from aim_exp.checkpoint.reader import Checkpoint
    from aim_exp.merge.groundwork import Material
    from aim_exp.tensors.sink import Sink

Factors = tuple["Tensor", "Tensor"]
"""Left [out, r] and right [r, in], float64, whose product is a delta."""
Combine = Callable[[Sequence["Tensor"]], "Tensor"]
"""Tensors of one shape, an expert each, to the merged one."""


@dataclass(frozen=True, kw_only=True)
class Aligned(MatrixMethod, SignElection):
    """The frame: a basis, the deltas in it, and TIES of these (trimmed to `density`, elected).

    `matrices` are those with two axes in a layer (`linear`), or all; what has other axes is as
    `others` says.
    """

    keeps_rank: ClassVar[bool] = True
    matrices: Matrices

    @abstractmethod
    def in_basis(self, factors: Sequence[Factors], combine: Combine) -> Tensor:
        """D, float64 [out, in]: what `combine` makes of the deltas in a common basis, and back."""

    def write(self, material: Material, sink: Sink) -> None:
        """Matrix by matrix."""
        names = material.base.tensors

        def matrix(inputs: TensorInputs, part: int | None) -> Tensor | None:
            if not is_matrix(inputs.name, inputs.base.shape, self.matrices):
                return None
            updates = [expert.tensors[inputs.name].update for expert in material.experts]
            turned = any(update and update.transposed for update in updates)
            factors = factors_of(material.base, material.experts, inputs, part, turned=turned)
            d = self.in_basis(factors, lambda aligned: self._combined(aligned, inputs))
            return d.T if turned else d

        self.write_tensors(material, sink, names, matrix)

    def _combined(self, aligned: Sequence[Tensor], inputs: TensorInputs) -> Tensor:
        """TIES of what stands for the deltas, with the weights and densities of the tensor."""
        import torch

        if not aligned[0].numel():
            return aligned[0]
        experts = tuple(each.float().contiguous() for each in aligned)
        space = replace(inputs, base=torch.zeros_like(experts[0]), experts=experts)
        kernel = replace(self, scale=1.0).prepare(space)
        return torch.cat([kernel(rows).double() for rows in space.blocks()])


@dataclass(frozen=True, kw_only=True)
class KnotsTies(Aligned):
    """KnOTS: `[d_1 .. d_T] = U S [V_1 .. V_T]`, `D = U TIES(S V_i)` (Stoica et al. 2410.19735)."""

    def in_basis(self, factors: Sequence[Factors], combine: Combine) -> Tensor:
        """By a decomposition as large as all ranks together."""
        import torch

        from aim_exp.merge.spectral import triplets

        q, small = torch.linalg.qr(torch.cat([left for left, _ in factors], dim=1))
        parts = small.split([left.shape[1] for left, _ in factors], dim=1)
        beside = [part @ right for part, (_, right) in zip(parts, factors, strict=True)]
        u, s, v = triplets(torch.cat(beside, dim=1))
        return q @ u @ combine((s[:, None] * v).chunk(len(factors), dim=1))


@dataclass(frozen=True, kw_only=True)
class CoreTies(Aligned):
    """Core space: `D = U TIES(U^T d_i V) V^T` (Panariello et al. 2025, 2509.17786).

    U are the left singular vectors of [B_1 .. B_T], V the right ones of [A_1; ..; A_T]; with
    `isotropic` the singular values of M become their mean.
    """

    isotropic: bool

    def in_basis(self, factors: Sequence[Factors], combine: Combine) -> Tensor:
        """Nothing is lost: U and V span all of every delta."""
        import torch

        from aim_exp.merge.spectral import isotropic, triplets

        u, _, _ = triplets(torch.cat([left for left, _ in factors], dim=1))
        _, _, v = triplets(torch.cat([right for _, right in factors]))
        m = combine([(u.T @ left) @ (right @ v.T) for left, right in factors])
        return u @ (isotropic(m) if self.isotropic else m) @ v


def factors_of(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    inputs: TensorInputs,
    part: int | None = None,
    *,
    turned: bool = False,
) -> list[Factors]:
    """Of each expert's delta, or of its part of that number; `turned` where it is [in, out]."""
    from aim_exp.merge.spectral import triplets

    factors = []
    for expert, tensor in zip(experts, inputs.experts, strict=True):
        known = expert.factors(inputs.name, base)
        if known is None:
            index = ... if part is None else part
            delta = tensor[index].double() - inputs.base[index].double()
            u, s, v = triplets(delta.T if turned else delta)
            known = u * s.sqrt(), s.sqrt()[:, None] * v
        factors.append(tuple(each.to(inputs.base.device).double() for each in known))
    return factors
