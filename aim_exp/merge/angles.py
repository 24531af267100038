"""Combinations of whole tensors whose coefficients come from the angles between them.

A pass over a tensor gives the products of all pairs, float64; all else is arithmetic on those,
however large the tensor is. A tensor of zeros has no angle: it counts as orthogonal.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from aim_exp.errors import Within
from aim_exp.merge.method import Kernel, MergeMethod, WeightedMethod
from aim_exp.tensors.inputs import SPARE, TensorInputs

if TYPE_CHECKING:
    from torch import Tensor

Vector = Callable[[slice, str], "Tensor"]
"""Rows of a tensor, float32, in the scratch buffer of that name."""


@dataclass(frozen=True, kw_only=True)
class ByAngles(MergeMethod):
    """`sum(c_i v_i)` over the experts' tensors, or over their deltas where it is `from_base`."""

    @abstractmethod
    def coefficients(self, products: Tensor, inputs: TensorInputs) -> Tensor:
        """c, float64 [T], from the products of all pairs, float64 [T, T]."""

    def vectors(self, inputs: TensorInputs) -> list[Vector]:
        """What is combined."""

        def rows_of(index: int, rows: slice, buffer: str) -> Tensor:
            return inputs.rows(index, rows, inputs.scratch(buffer, inputs.base[rows].shape))

        source = inputs.delta if self.from_base else rows_of
        return [partial(source, index) for index in range(len(inputs.experts))]

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """The products of the whole tensor first, then any rows."""
        import torch

        vectors = self.vectors(inputs)
        count = len(vectors)
        products = torch.zeros(count, count, dtype=torch.float64, device=inputs.scratch.device)
        for rows in inputs.blocks():
            blocks = [v(rows, f"vector {i}").reshape(-1) for i, v in enumerate(vectors)]
            x = torch.stack(blocks).double()
            products += x @ x.T
        factors = self.coefficients(products.cpu(), inputs).tolist()

        def merge(rows: slice) -> Tensor:
            shape = inputs.base[rows].shape
            merged = inputs.scratch("merged", shape).zero_()
            for vector, factor in zip(vectors, factors, strict=True):
                merged.add_(vector(rows, SPARE), alpha=factor)
            return merged

        return merge


@dataclass(frozen=True, kw_only=True)
class ModelStock(ByAngles):
    """`base + t mean(d_i)`, t = T c / (1 + (T - 1) c) (Jang et al. 2024, arXiv 2403.19522).

    c is the mean cosine of the pairs of task vectors, per tensor. Where it is below zero the
    tensor stays base's: the estimate holds for angles up to 90 degrees.
    """

    from_base: ClassVar[bool] = True
    keeps_rank: ClassVar[bool] = True
    fewest_experts: ClassVar[int] = 2

    def coefficients(self, products: Tensor, inputs: TensorInputs) -> Tensor:
        """t / T for each."""
        import torch

        count = len(products)
        pairs = torch.triu_indices(count, count, 1).unbind()
        cosine = _cosines(products)[pairs].mean().clamp(min=0)
        return (cosine / (1 + (count - 1) * cosine)).expand(count)


@dataclass(frozen=True, kw_only=True)
class Slerp(ByAngles):
    """Along the arc from one expert to the other, or from base to the only one (Shoemake 1985).

    `sin((1 - t) a) / sin(a) x_1 + sin(t a) / sin(a) x_2`, a the angle of the flattened tensors;
    a line where |cos a| > 0.9995.
    """

    most_experts: ClassVar[int | None] = 2
    t: Annotated[float, Within(0, 1)]

    def vectors(self, inputs: TensorInputs) -> list[Vector]:
        """Base too, where there is one expert."""
        ends = super().vectors(inputs)
        return ends if len(ends) == 2 else [lambda rows, buffer: inputs.base_rows(rows), *ends]

    def coefficients(self, products: Tensor, inputs: TensorInputs) -> Tensor:
        """Of the two ends."""
        return _on_arc(_cosines(products)[0, 1], self.t, straight=0.9995)


@dataclass(frozen=True, kw_only=True)
class NuSlerp(WeightedMethod, ByAngles):
    """Slerp of two task vectors at t = w_2 / (w_1 + w_2), without norms (mergekit's `nuslerp`)."""

    from_base: ClassVar[bool] = True
    keeps_rank: ClassVar[bool] = True
    fewest_experts: ClassVar[int] = 2
    most_experts: ClassVar[int | None] = 2
    divides: ClassVar[bool] = True

    def coefficients(self, products: Tensor, inputs: TensorInputs) -> Tensor:
        """Of the two task vectors."""
        weights = self.weights_in(inputs)
        return _on_arc(_cosines(products)[0, 1], weights[1] / sum(weights), straight=1 - 1e-15)


@dataclass(frozen=True, kw_only=True)
class Karcher(ByAngles):
    """The Riemannian mean of the experts' directions times their mean norm (mergekit's `karcher`).

    From the normalised mean of the unit tensors u_i, at most `max_iter` steps
    `u <- exp_u(mean(log_u(u_i)))`, until a step is shorter than `tol`; the experts count equally.
    """

    max_iter: Annotated[int, Within(0)]
    tol: Annotated[float, Within(0, 1, open_low=True)]

    def coefficients(self, products: Tensor, inputs: TensorInputs) -> Tensor:
        """By iteration in the span of the experts."""
        import torch

        norms = products.diagonal().sqrt()
        there = (norms != 0).double()
        units = torch.where(norms == 0, 0.0, 1 / norms)
        if not there.any():
            return units
        cosines = products * units * units[:, None]
        shares = there / there.sum()

        def length(x: Tensor) -> float:
            return (x @ cosines @ x).clamp(min=0).sqrt().item()

        mean = shares / length(shares) if length(shares) >= self.tol else there * 0
        if not mean.any():  # opposed: any of them will do
            mean[there.argmax()] = 1
        for _ in range(self.max_iter):
            dots = (cosines @ mean).clamp(-1, 1)
            angles = dots.acos()
            slopes = torch.where(angles < self.tol, 0.0, shares * angles / angles.sin())
            step = slopes - (slopes * dots).sum() * mean
            size = length(step)
            if size < self.tol:
                break
            mean = math.cos(size) * mean + math.sin(size) / size * step
            mean = mean / length(mean)
        return mean * units * norms.mean()


def _cosines(products: Tensor) -> Tensor:
    """Of all pairs."""
    import torch

    norms = products.diagonal().sqrt()
    scale = norms * norms[:, None]
    return torch.where(scale == 0, 0.0, products / scale).clamp(-1, 1)


def _on_arc(cosine: Tensor, t: float, *, straight: float) -> Tensor:
    """The coefficients of the ends at `t` of the arc, float64 [2]; a line beyond `straight`."""
    import torch

    places = torch.tensor([1 - t, t], dtype=torch.float64)
    if cosine.abs() > straight:
        return places
    angle = cosine.acos()
    return (places * angle).sin() / angle.sin()
