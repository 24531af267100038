"""Slow, plain versions of the merge methods: whole tensors, one line per definition."""

import torch
from torch import Tensor

from aim_exp.merge.masks import keep_mask, stream_key


def trim(delta: Tensor, density: float) -> Tensor:
    """Keep the k largest magnitudes; of equal ones the first."""
    flat = delta.flatten()
    k = max(1, int(density * flat.numel()))
    order = sorted(range(flat.numel()), key=lambda i: (-abs(flat[i].item()), i))
    kept = torch.zeros_like(flat)
    kept[order[:k]] = flat[order[:k]]
    return kept.view(delta.shape)


def drop(delta: Tensor, density: float, rescale: str | None, key: int) -> Tensor:
    """Keep what the mask of stream `key` keeps."""
    mask = keep_mask(key, 0, delta.numel(), density).view(delta.shape)
    kept = torch.where(mask, delta, 0.0)
    if rescale == "inv_density":
        return kept / density
    if rescale == "l1" and kept.abs().sum() > 0:
        return kept * (delta.abs().sum() / kept.abs().sum())
    return kept


def elect(weighted: list[Tensor], weights: list[float], normalize: bool) -> Tensor:
    """Element by element: those that have the sign of the sum."""
    out = torch.zeros_like(weighted[0]).flatten()
    columns = [w.flatten().tolist() for w in weighted]
    for i, values in enumerate(zip(*columns, strict=True)):
        sign = 1 if sum(values) >= 0 else -1
        kept = [(v, w) for v, w in zip(values, weights, strict=True) if v * sign > 0]
        total = sum(w for _, w in kept)
        out[i] = sum(v for v, _ in kept) / ((total or 1) if normalize else 1)
    return out.view(weighted[0].shape)


def merge(
    method: str,
    name: str,
    base: Tensor,
    experts: dict[str, Tensor],
    weights: list[float],
    *,
    scale: float = 1.0,
    density: float = 1.0,
    normalize: bool = False,
    rescale: str | None = None,
    seed: int = 0,
) -> Tensor:
    """The merged tensor in float64."""
    x = {expert: tensor.double() for expert, tensor in experts.items()}
    b = base.double()
    if method == "linear":
        return sum(w * t for w, t in zip(weights, x.values(), strict=True)) / sum(weights)
    deltas = {expert: (tensor.float() - base.float()).double() for expert, tensor in x.items()}
    if method == "ties":
        deltas = {expert: trim(delta, density) for expert, delta in deltas.items()}
    if method.startswith("dare"):
        deltas = {
            expert: drop(delta, density, rescale, stream_key(seed, expert, name))
            for expert, delta in deltas.items()
        }
    weighted = [w * d for w, d in zip(weights, deltas.values(), strict=True)]
    if method.endswith("ties"):
        return b + scale * elect(weighted, weights, normalize)
    return b + scale * sum(weighted)
