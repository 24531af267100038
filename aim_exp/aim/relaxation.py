"""AIM's relaxation: pull merged weights back to base in the channels that base uses most.

Nobari et al., "Activation-Informed Merging of Large Language Models", NeurIPS 2025.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aim_exp.errors import AimError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

Scaling = Callable[["Tensor"], "Tensor"]
"""The paper's f: s / max s, float32 [channels] in [0, 1], to the strength of the pull."""

STATISTICS = ("mean_abs", "rms")
SCALINGS = ("identity", "uniform", "shuffled", "inverted")
STOCHASTIC_SCALINGS = frozenset({"shuffled"})


@dataclass(frozen=True, kw_only=True)
class AimSettings:
    """The group `aim`: everything about AIM but omega.

    `statistic` is what is measured per input channel: `mean_abs`, the paper's mean |x|, or
    `rms`. `scaling` is f (`named_scaling`). `exclude` are glob patterns of tensor names that
    keep their merged values. `tied_head` says whether an embedding that is also the output
    head is relaxed by the head's input (`relax`, the authors' code) or not (`keep`).
    """

    statistic: str
    scaling: str
    exclude: tuple[str, ...]
    tied_head: str

    def problems(self) -> list[str]:
        """What is wrong with the settings, `key=value: why; fix` each."""
        choices = {"statistic": STATISTICS, "scaling": SCALINGS, "tied_head": ("keep", "relax")}
        return [
            f"aim.{key}={getattr(self, key)}: must be one of {', '.join(known)}"
            for key, known in choices.items()
            if getattr(self, key) not in known
        ]

    @property
    def stochastic(self) -> bool:
        """Whether the scaling draws from the seed."""
        return self.scaling in STOCHASTIC_SCALINGS


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


def relaxation(saliency: Tensor, omega: float, scaling: Scaling | None = None) -> Tensor:
    """r in [omega, 1] for each channel: what share of its delta stays. float32 [channels]."""
    import torch

    if not 0 <= omega <= 1:  # also refuses NaN
        raise AimError(f"omega={omega}: must be in [0, 1]")
    if not torch.isfinite(saliency).all():
        raise NonFiniteError("saliency: NaN or infinite")
    s = saliency.float()
    largest = s.max()
    if largest <= 0:
        return torch.ones_like(s)
    s = s / largest
    return 1 - (s if scaling is None else scaling(s)) * (1 - omega)


def blend(base: Tensor, merged: Tensor, r: Tensor, out: Tensor | None = None) -> Tensor:
    """`base + (merged - base) * r` in float32, exact at r = 0 and r = 1; `r` broadcasts."""
    import torch

    start = base.float()
    found = torch.sub(merged, start, out=out).mul_(r).add_(start)
    whole = r == 1  # where base + (merged - base) need not round to merged
    return torch.where(whole, merged, found) if whole.any() else found


def named_scaling(name: str, seed: int, tensor_name: str) -> Scaling | None:
    """The f called `name`, for the tensor `tensor_name`.

    The controls keep the mean of s / max s and lose what AIM is about: `uniform` is the mean
    everywhere, `shuffled` a permutation drawn from (seed, tensor name), `inverted` gives the
    least salient channel the largest value, reversed by rank.
    """
    functions: Mapping[str, Scaling | None] = {
        "identity": None,
        "uniform": lambda s: s.mean().expand_as(s),
        "shuffled": lambda s: s[_permutation(len(s), seed, tensor_name).to(s.device)],
        "inverted": _reverse_ranks,
    }
    return functions[name]


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
