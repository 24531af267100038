"""AIM's relaxation: pull merged weights back to base in the channels that base uses most.

Nobari et al., "Activation-Informed Merging of Large Language Models", NeurIPS 2025.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from aim_exp.aim.settings import named
from aim_exp.errors import AimError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

Scaling = Callable[["Tensor"], "Tensor"]
"""The paper's f: s / max s, float32 [channels] in [0, 1], to the strength of the pull."""


def relax(
    base: Tensor,
    merged: Tensor,
    saliency: Tensor,
    omega: float,
    *,
    axis: int = -1,
    scaling: Scaling | None = None,
) -> Tensor:
    """`base + (merged - base) * r`, with `r = 1 - f(s / max s) * (1 - omega)` per input channel.

    `base` and `merged` have one shape; `saliency` is [channels], the raw mean |x| of the
    channels of `axis`. `scaling` is f, the identity if None. Computed in float32 and rounded
    once, to merged's dtype. omega 1 returns the merged values unchanged, and so does a
    saliency of zeros; at omega 0 the most salient channel becomes base's.

    Raises AimError for an omega outside [0, 1] or shapes that do not fit, NonFiniteError for
    a NaN or infinite saliency.
    """
    if base.shape != merged.shape:
        raise AimError(f"base {tuple(base.shape)} and merged {tuple(merged.shape)} differ in shape")
    axis = axis % merged.ndim
    if saliency.shape != (merged.shape[axis],):
        raise AimError(
            f"saliency {tuple(saliency.shape)} does not fit axis {axis} of {tuple(merged.shape)}"
        )
    r = relaxation(saliency, omega, scaling)
    shape = [1] * merged.ndim
    shape[axis] = -1
    return blend(base, merged.float(), r.to(merged.device).view(shape)).to(merged.dtype)


def relaxation(
    saliency: Tensor, omega: float, scaling: Scaling | None = None, *, normalise: str = "max"
) -> Tensor:
    """r in [omega, 1] for each channel: what share of its delta stays. float32 [channels]."""
    if not 0 <= omega <= 1:  # also refuses NaN
        raise AimError(f"omega={omega}: must be in [0, 1]")
    return 1 - _strength(saliency, scaling, normalise) * (1 - omega)


def _strength(saliency: Tensor, scaling: Scaling | None, normalise: str) -> Tensor:
    """f(min(s / N, 1)), where N is the largest, the 99th percentile or the mean of s."""
    import torch

    if not torch.isfinite(saliency).all():
        raise NonFiniteError("saliency: NaN or infinite")
    s = saliency.float()
    largest = s.max()
    if largest <= 0:
        return torch.zeros_like(s)
    if normalise == "max":
        s = s / largest
    else:
        unit = s.double().quantile(0.99).float() if normalise == "p99" else s.mean()
        s = torch.where(s < unit, s / unit, (s > 0).float())
    return s if scaling is None else scaling(s)


def blend(base: Tensor, merged: Tensor, r: Tensor, out: Tensor | None = None) -> Tensor:
    """`base + (merged - base) * r` in float32, exact at r = 0 and r = 1; `r` broadcasts."""
    import torch

    start = base.float()
    blended = torch.sub(merged, start, out=out).mul_(r).add_(start)
    whole = r == 1  # where base + (merged - base) need not round to merged
    return torch.where(whole, merged, blended) if whole.any() else blended


def named_scaling(scaling: str, seed: int, tensor_name: str) -> Scaling | None:
    """The f of `aim.scaling`, for the tensor `tensor_name`; None for the identity.

    `power:P` is s^P, `threshold:T` pulls the channels from T on at full strength and no other.
    The controls keep the mean of s and lose what AIM is about: `uniform` is the mean
    everywhere, `shuffled` a permutation drawn from (seed, tensor name), `inverted` gives the
    least salient channel the largest value, reversed by rank. What matches AIM by another
    measure than the mean starts from its r: the identity here.
    """
    name, value = named(scaling)
    value = 1.0 if value is None else value  # of those that take none
    functions: Mapping[str, Scaling] = {
        "power": lambda s: s**value,
        "threshold": lambda s: (s >= value).float(),
        "uniform": lambda s: s.mean().expand_as(s),
        "shuffled": lambda s: s[_permutation(len(s), seed, tensor_name).to(s.device)],
        "inverted": _reverse_ranks,
    }
    return functions.get(name)


def _reverse_ranks(s: Tensor) -> Tensor:
    import torch

    values, order = torch.sort(s, stable=True)
    reversed_s = torch.empty_like(s)
    reversed_s[order] = values.flip(0)
    return reversed_s


def _permutation(n: int, seed: int, tensor_name: str) -> Tensor:
    import torch

    digest = hashlib.sha256(f"{seed}/{tensor_name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(n, generator=generator)
