"""How a model spreads its activations over channels: flat, or heavy-tailed.

AIM divides by the largest channel. Where a few channels carry most of the activation, it pulls
these and hardly any other; where all carry alike, it is close to a uniform shrink.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean

import torch
from torch import Tensor

from aim_exp.aim.dose import RELAXED_BELOW
from aim_exp.aim.relaxation import relaxation
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.names import kind_of

ENOUGH_TOKENS = 32_000
"""From here on the statistics of a mean over tokens no longer move much."""


@dataclass(frozen=True)
class Spread:
    """How one input's saliency s, mean |x_j|, is spread over its channels."""

    max_to_median: float
    """Infinite where most channels are never used."""
    top_share: float
    """Of the sum of s, in the top 1 % of the channels (at least one)."""
    gini: float
    """0: all alike; towards 1: all in one channel."""
    kurtosis: float
    """m4 / m2^2 over channels; 3 for a normal distribution."""
    share_below: float
    """Of channels with r < 0.9 at the omega asked for."""
    split_half: float
    """Pearson's correlation over channels of s on one half of the text with s on the other."""


@dataclass(frozen=True)
class Input:
    """The modules that read one input in a layer, by kind: `k_proj q_proj v_proj`."""

    kinds: str
    spreads: Mapping[str, Spread]
    """By the first such weight of each layer."""
    profile: Tensor
    """s / max s in falling order, the mean over layers; float64 [channels]."""

    @property
    def mean(self) -> Spread:
        """The mean over layers."""
        rows = [asdict(spread) for spread in self.spreads.values()]
        return Spread(**{name: fmean(row[name] for row in rows) for name in rows[0]})


def spread_of(half: Tensor, other: Tensor, omega: float) -> Spread:
    """Of an input whose saliency was `half` and `other`, [channels], on as much text each."""
    s = (half.double() + other.double()) / 2
    ordered = s.sort().values
    n, total = len(s), s.sum()
    centred = s - s.mean()
    ranks = torch.arange(1, n + 1, dtype=torch.float64)
    top = ordered[-max(1, n // 100) :]
    r = relaxation(s.float(), omega)
    return Spread(
        max_to_median=(ordered[-1] / s.quantile(0.5)).item(),
        top_share=(top.sum() / total).item(),
        gini=((2 * ranks - n - 1) @ ordered / (n * total)).item(),
        kurtosis=(centred.pow(4).mean() / centred.square().mean().square()).item(),
        share_below=(r < RELAXED_BELOW).double().mean().item(),
        split_half=torch.corrcoef(torch.stack([half.double(), other.double()]))[0, 1].item(),
    )


def regime(half: Saliency, other: Saliency, omega: float) -> list[Input]:
    """Every kind of input of a model that was measured on two halves of a text.

    Kinds that read the same input in every layer are one.
    """
    by_kind: dict[str, list[str]] = {}
    for name in half.channels:
        by_kind.setdefault(kind_of(name), []).append(name)
    shared: dict[tuple[bytes, ...], list[str]] = {}
    for kind, names in by_kind.items():
        content = tuple(half.channels[name].numpy().tobytes() for name in names)
        shared.setdefault(content, []).append(kind)
    return [_input(kinds, by_kind[kinds[0]], half, other, omega) for kinds in shared.values()]


def _input(
    kinds: list[str], names: Iterable[str], half: Saliency, other: Saliency, omega: float
) -> Input:
    spreads: dict[str, Spread] = {}
    profiles: list[Tensor] = []
    for name in names:
        a, b = half.channels[name], other.channels.get(name)
        if b is None:  # an expert that only one half reached
            continue
        spreads[name] = spread_of(a, b, omega)
        s = (a.double() + b.double()).sort(descending=True).values
        profiles.append(s / s[0])
    return Input(" ".join(kinds), spreads, torch.stack(profiles).mean(0))
