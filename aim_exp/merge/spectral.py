"""Directions from singular value decompositions, all in the precision of what they are given.

Deltas are float64 [T, out, in], already weighted; a direction is [out, in].
"""

from __future__ import annotations

import torch
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]
"""U [out, r], S [r], V^T [r, in]."""


def tsv_m(deltas: Tensor, rank: int | None) -> Tensor:
    """Task singular vectors; `rank` directions of each delta, or an equal part of all."""
    count, side = len(deltas), min(deltas.shape[1:])
    tops = [triplets(delta, rank or max(1, side // count)) for delta in deltas]
    s = torch.cat([s for _, s, _ in tops])
    return _orthogonal(tops, s)


def iso_c(deltas: Tensor, rank: int | None) -> Tensor:
    """The sum with equal singular values; `rank` directions for each delta, or all."""
    u, s, v = triplets(deltas.sum(0), rank and rank * len(deltas))
    return u @ v * (s.mean() if len(s) else 0.0)


def iso_cts(deltas: Tensor, common: float, rank: int | None) -> Tensor:
    """Common directions of the sum and those of each delta beside them, equal singular values."""
    count = len(deltas)
    side = min(*deltas.shape[1:], *([rank * count] if rank else []))
    own = min(round((side - int(common * side)) / count), side // count)
    shared = triplets(deltas.sum(0), side - own * count)
    u = shared[0]
    rests = [(delta - u @ (u.T @ delta), delta.norm().item()) for delta in deltas]
    tops = [*(triplets(rest, own, size) for rest, size in rests), shared]
    s = torch.cat([s for _, s, _ in tops])
    return _orthogonal(tops, s.mean().expand_as(s) if len(s) else s)


def triplets(matrix: Tensor, count: int | None = None, size: float = 0.0) -> Triplets:
    """The `count` (None: all) largest singular triplets; none that are zero to this precision.

    `size` is the norm of what the matrix is a rest of, where rounding may be all that it holds.
    """
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    limit = max(matrix.shape) * torch.finfo(s.dtype).eps * s[:1].clamp(min=size).sum()
    kept = slice(min(int((s > limit).sum()), len(s) if count is None else count))
    return u[:, kept], s[kept], v[kept]


def _orthogonal(parts: list[Triplets], s: Tensor) -> Tensor:
    """`U' diag(s) V'`, made of all parts' U and V side by side."""
    if not len(s):
        return parts[0][0] @ parts[0][2]
    u = polar(torch.cat([u for u, _, _ in parts], dim=1))
    v = polar(torch.cat([v for _, _, v in parts], dim=0))
    return u * s @ v


def polar(matrix: Tensor) -> Tensor:
    """The nearest partial isometry: orthonormal columns, where `matrix` has full rank."""
    u, _, v = triplets(matrix)
    return u @ v
