"""Directions from singular value decompositions, all in the precision of what they are given."""

import torch
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]
"""U [out, r], S [r], V^T [r, in]."""


def isotropic(matrix: Tensor, count: int | None = None) -> Tensor:
    """Its `count` (None: all) strongest directions, all equally strong."""
    u, s, v = triplets(matrix, count)
    return u @ v * (s.mean() if len(s) else 0.0)


def triplets(matrix: Tensor, count: int | None = None, size: float = 0.0) -> Triplets:
    """The `count` (None: all) largest singular triplets; none that are zero to this precision.

    `size` is the norm of what the matrix is a rest of, where rounding may be all that it holds.
    """
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    limit = max(matrix.shape) * torch.finfo(s.dtype).eps * s[:1].clamp(min=size).sum()
    kept = slice(min(int((s > limit).sum()), len(s) if count is None else count))
    return u[:, kept], s[kept], v[kept]


def made_orthogonal(parts: list[Triplets], *, isotropic: bool = False) -> Tensor:
    """`U' diag(s) V'`, made of all parts' U and V side by side; `isotropic` with the mean of s."""
    s = torch.cat([s for _, s, _ in parts])
    if not len(s):
        return parts[0][0] @ parts[0][2]
    s = s.mean().expand_as(s) if isotropic else s
    u = polar(torch.cat([u for u, _, _ in parts], dim=1))
    v = polar(torch.cat([v for _, _, v in parts], dim=0))
    return u * s @ v


def polar(matrix: Tensor) -> Tensor:
    """The nearest partial isometry: orthonormal columns, where `matrix` has full rank."""
    u, _, v = triplets(matrix)
    return u @ v
