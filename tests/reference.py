"""Slow, plain versions of the merge methods: whole tensors, one line per definition."""

import math
from itertools import combinations

import torch
from torch import Tensor

from aim_exp.merge.masks import draws, keep_mask, stream_key


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


def without_outliers(delta: Tensor, density: float, gamma: float) -> Tensor:
    """Keep ascending ranks [bottom, bottom + keep); of equal magnitudes the last is the lowest."""
    flat = delta.flatten()
    n = flat.numel()
    keep, top = int(density * n), int(gamma * n)
    bottom = max(0, n - keep - top)
    order = sorted(range(n), key=lambda i: (abs(flat[i].item()), -i))[bottom : bottom + keep]
    kept = torch.zeros_like(flat)
    kept[order] = flat[order]
    return kept.view(delta.shape)


def ranked_drop(
    delta: Tensor, density: float, epsilon: float, rescale: str | None, key: int
) -> Tensor:
    """Row by row: the larger a magnitude in it, the likelier it stays."""
    numbers = draws(key, 0, delta.numel()).tolist()
    kept = torch.zeros_like(delta).flatten()
    width = delta.shape[-1]
    for start in range(0, delta.numel(), width):
        row = delta.flatten()[start : start + width].tolist()
        order = sorted(range(width), key=lambda i: (abs(row[i]), i))
        for rank, i in enumerate(order):
            share = rank / (width - 1) if width > 1 else 0.5
            p = density - epsilon + 2 * epsilon * share
            if numbers[start + i] < round(p * 65536) - 32768:
                kept[start + i] = row[i] / (p if rescale == "inv_density" else 1)
    if rescale == "l1" and kept.abs().sum() > 0:
        kept *= delta.abs().sum() / kept.abs().sum()
    return kept.view(delta.shape)


def consensus(weighted: list[Tensor], mask_lambda: float, k: int) -> Tensor:
    """The sum where at least k need it."""
    total = torch.stack(weighted).sum(0)
    needed = [w.abs() > mask_lambda * (total - w).abs() for w in weighted]
    return torch.where(torch.stack(needed).sum(0) >= k, total, 0.0)


def sce(deltas: list[Tensor], select_topk: float) -> Tensor:
    """Select by variance, weigh by squares, erase by sign."""
    d = torch.stack(deltas).flatten(1)
    if select_topk < 1:
        variance = d.float().var(0, correction=0)
        k = int(int((variance > 0).sum()) * select_topk)
        order = sorted(range(d.shape[1]), key=lambda i: (-variance[i].item(), i))
        dropped = torch.ones(d.shape[1], dtype=torch.bool)
        dropped[order[:k]] = False
        d[:, dropped] = 0
    c = d.square().mean(1) / d.square().mean(1).sum()
    out = torch.zeros(d.shape[1], dtype=torch.float64)
    for j in range(d.shape[1]):
        sign = 1 if d[:, j].sum() >= 0 else -1
        agreeing = [i for i in range(len(d)) if d[i, j] * sign > 0]
        if agreeing:
            out[j] = sum(c[i] * d[i, j] for i in agreeing) / sum(c[i] for i in agreeing)
    return out.view(deltas[0].shape)


def cosine(a: Tensor, b: Tensor) -> float:
    """Of flattened tensors."""
    return float((a * b).sum() / (a.norm() * b.norm()))


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Along the arc."""
    angle = math.acos(cosine(a, b))
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def karcher(x: list[Tensor], max_iter: int, tol: float) -> Tensor:
    """The mean on the sphere, in the space of the tensors."""
    units = [t / t.norm() for t in x]
    mean = torch.stack(units).mean(0)
    mean = mean / mean.norm()
    for _ in range(max_iter):
        logs = []
        for u in units:
            angle = math.acos(cosine(mean, u))
            tangent = u - cosine(mean, u) * mean
            logs.append(tangent * 0 if angle < tol else angle * tangent / tangent.norm())
        step = torch.stack(logs).mean(0)
        if step.norm() < tol:
            break
        mean = math.cos(step.norm()) * mean + math.sin(step.norm()) * step / step.norm()
    return mean * torch.stack([t.norm() for t in x]).mean()


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
    gamma: float = 0.0,
    epsilon: float = 0.0,
    mask_lambda: float = 0.0,
    k: int = 0,
    select_topk: float = 1.0,
    t: float = 0.5,
    max_iter: int = 10,
    tol: float = 1e-5,
) -> Tensor:
    """The merged tensor in float64."""
    x = {expert: tensor.double() for expert, tensor in experts.items()}
    b = base.double()
    if method == "linear":
        return sum(w * t for w, t in zip(weights, x.values(), strict=True)) / sum(weights)
    if method == "slerp":
        return slerp(*x.values(), t)
    if method == "karcher":
        return karcher([*x.values()], max_iter, tol)
    deltas = {expert: (tensor.float() - base.float()).double() for expert, tensor in x.items()}
    if method == "ties":
        deltas = {expert: trim(delta, density) for expert, delta in deltas.items()}
    d = [*deltas.values()]
    if method == "sce":
        return b + sce(d, select_topk)
    if method == "nuslerp":
        return b + slerp(*d, weights[1] / sum(weights))
    if method == "model_stock":
        c = max(0.0, sum(cosine(*pair) for pair in combinations(d, 2)) / math.comb(len(d), 2))
        ratio = len(d) * c / (1 + (len(d) - 1) * c)
        return ratio * torch.stack([*x.values()]).mean(0) + (1 - ratio) * b
    if method.startswith("breadcrumbs"):
        deltas = {expert: without_outliers(e, density, gamma) for expert, e in deltas.items()}
    if method.startswith("della"):
        deltas = {
            expert: ranked_drop(e, density, epsilon, rescale, stream_key(seed, expert, name))
            for expert, e in deltas.items()
        }
    if method.startswith("dare"):
        deltas = {
            expert: drop(delta, density, rescale, stream_key(seed, expert, name))
            for expert, delta in deltas.items()
        }
    weighted = [w * d for w, d in zip(weights, deltas.values(), strict=True)]
    if method == "consensus_ta":
        return b + scale * consensus(weighted, mask_lambda, k)
    if method.endswith("ties") or method == "della":
        return b + scale * elect(weighted, weights, normalize)
    return b + scale * sum(weighted)
