"""Whether a difference between two models is more than the luck of the items.

Two models that answered the same items are compared item by item: what both get right or
wrong says nothing, and the noise that they share drops out. Pure: numbers in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95
"""Of every interval; a claim holds where its p lies below 1 - LEVEL and 0 outside its interval."""
RESAMPLES = 10_000
"""Of an interval, and of a test at least."""
MOST_SWAPS = 16 * RESAMPLES
"""Of a test: more would take minutes over a thousand runs."""
FINENESS = 5
"""The least p, after Holm, is to be this many times smaller than a claim needs."""
SEED = 0
ROUNDING = 1e-9
"""Differences closer than this are equal; those of scores are far larger, or none."""
ITEMS_PER_KIND = 8
"""From so many on, a multinomial is quicker than drawing the items one by one."""
CELLS = 1 << 16
"""Numbers drawn at once, at most: 512 KiB, which stay in the processor's cache."""


@dataclass(frozen=True)
class PairedTest:
    """A difference (after minus before), its interval, and a two-sided p of no difference.

    The interval is of level `LEVEL`, for this comparison alone.
    """

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Stratum:
    """Items of one kind and what several models got of them; resampled within.

    A model's score is the mean over parts of `sum(gained) / sum(possible)` over the items: an
    accuracy has one part and 1 to gain per item. `weight` is this score's weight in the
    benchmark's.
    """

    gained: Floats
    """[items, models, parts]"""
    possible: Floats
    """[items, parts]"""
    weight: float = 1.0

    @property
    def scores(self) -> Floats:
        """[models], as observed."""
        return _ratios(self.gained.sum(axis=0), self.possible.sum(axis=0)[None])


def mcnemar(before: ArrayLike, after: ArrayLike) -> PairedTest:
    """Two accuracies on the same items: `before` and `after` are [items] of 0 and 1.

    p is the exact (binomial) test of McNemar (1947): of the items that only one model got
    right, each one does with probability 1/2. The interval is that of Bonett & Price (2012),
    "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data": near its level from few items on, and no point where no answer differs.
    """
    from scipy.stats import binomtest

    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    assert first.ndim == 1
    assert first.shape == second.shape
    n, won, lost = first.size, int((second & ~first).sum()), int((first & ~second).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    margin = _quantile() * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    low, high = max(-1.0, up - down - margin), min(1.0, up - down + margin)
    return PairedTest((won - lost) / n, float(low), float(high), p)


def clustered_stderr(values: ArrayLike, clusters: ArrayLike) -> float:
    """The standard error of the mean of `values` [items], whose items come in families.

    `clusters` [items] names each item's family. What the items of one share does not average out:
    the residuals are summed within families first (Liang & Zeger 1986), times G / (G - 1) for G of
    them. With a family per item it is the usual one; nan for a single family.
    """
    scores = np.asarray(values, dtype=float)
    _, family = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(family.reshape(-1), weights=scores - scores.mean())
    count = len(sums)
    if count < 2:
        return math.nan
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / scores.size)


def bootstrap_scores(
    strata: Sequence[Stratum], resamples: int = RESAMPLES, rng: np.random.Generator | None = None
) -> Floats:
    """[resamples, models]: a benchmark's score with its items drawn again, per stratum.

    All models get the same items in a resample (the paired bootstrap; Efron & Tibshirani 1993,
    chapter 8). The same `rng` (default: seed `SEED`) gives the same numbers.
    """
    rng = rng or np.random.default_rng(SEED)
    return sum(
        (stratum.weight * _resampled(stratum, resamples, rng) for stratum in strata),
        start=np.zeros((resamples, 1)),
    )


def swapped_scores(
    strata: Sequence[Stratum], resamples: int = RESAMPLES, rng: np.random.Generator | None = None
) -> Floats:
    """[resamples, 2]: a benchmark's scores of two models with their answers swapped by coin.

    If the models do not differ, it does not matter who gave which answer to an item, and the
    observed difference is one of these: the randomisation test (Fisher 1935; Noreen 1989).
    Of one accuracy this is McNemar's test. `swaps_for` says how many are enough.
    """
    rng = rng or np.random.default_rng(SEED)
    return sum(
        (stratum.weight * _swapped(stratum, resamples, rng) for stratum in strata),
        start=np.zeros((resamples, 2)),
    )


def resampling_test(observed: float, resampled: ArrayLike, swapped: ArrayLike) -> PairedTest:
    """A difference's percentile interval from the bootstrap, and its p from the swaps.

    Both are [resamples] of differences. Not p from the bootstrap too: it is far too small
    where few answers differ. The observation counts among the swaps, so that p is never 0 and
    the test keeps its level however few swaps are drawn (Phipson & Smyth 2010).
    """
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(np.asarray(resampled, dtype=float), [tail, 100 - tail])
    values = np.abs(np.asarray(swapped, dtype=float))
    as_large = int((values >= abs(observed) - ROUNDING).sum())
    p = (as_large + 1) / (values.size + 1)
    return PairedTest(float(observed), float(low), float(high), p)


def swaps_for(comparisons: int) -> int:
    """How many swaps a test needs if it is one of so many that Holm's method corrects.

    No p is below 1 / (swaps + 1), and the smallest is multiplied by `comparisons`: too few
    swaps, and none of them can be rejected. At most `MOST_SWAPS`. They double from step to
    step, so that a sweep's earlier tests mostly stand while it grows.
    """
    needed = FINENESS * comparisons / (1 - LEVEL) / RESAMPLES
    return min(RESAMPLES * 2 ** max(0, math.ceil(math.log2(needed))), MOST_SWAPS)


def can_reject(comparisons: int) -> bool:
    """Whether Holm over so many tests with `swaps_for` them can reject any."""
    return comparisons / (swaps_for(comparisons) + 1) < 1 - LEVEL


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for being many (Holm 1979); those below a level hold all together.

    The smallest is multiplied by their number, the next by one less, and so on; never less
    than a smaller one's, and at most 1.
    """
    adjusted = [0.0] * len(ps)
    reached = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        reached = max(reached, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = reached
    return adjusted


def _resampled(stratum: Stratum, resamples: int, rng: np.random.Generator) -> Floats:
    """Items that are alike count together: how often each kind of them was drawn is enough.

    Accuracies of two models have four kinds of items, however many there are.
    """
    items, models, parts = stratum.gained.shape
    table = np.concatenate([stratum.gained.reshape(items, -1), stratum.possible], axis=1)
    kinds, kind = np.unique(table, axis=0, return_inverse=True)
    few = items < ITEMS_PER_KIND * len(kinds)
    counts, width = (_counts_by_item, items) if few else (_counts_by_kind, len(kinds))
    sums = np.concatenate(
        [counts(kind.reshape(-1), number, rng) @ kinds for number in _chunks(resamples, width)]
    )
    gained, possible = sums[:, : models * parts], sums[:, models * parts :]
    return _ratios(gained.reshape(resamples, models, parts), possible[:, None])


def _counts_by_item(kind: Ints, resamples: int, rng: np.random.Generator) -> Ints:
    """[resamples, kinds]: how often each kind is drawn; `kind` is that of each item."""
    kinds = int(kind.max()) + 1
    draws = kind[rng.integers(kind.size, size=(resamples, kind.size))]
    draws += kinds * np.arange(resamples)[:, None]
    return np.bincount(draws.reshape(-1), minlength=resamples * kinds).reshape(resamples, kinds)


def _counts_by_kind(kind: Ints, resamples: int, rng: np.random.Generator) -> Ints:
    """The same, by its distribution: multinomial."""
    return rng.multinomial(kind.size, np.bincount(kind) / kind.size, size=resamples)


def _swapped(stratum: Stratum, resamples: int, rng: np.random.Generator) -> Floats:
    """Of each kind of items that the models differ in, how many are swapped is binomial.

    Which answer of a pair is called the first does not matter then: the lesser one.
    """
    first, second = stratum.gained[:, 0], stratum.gained[:, 1]
    swap = (second - first).sum(axis=1, keepdims=True) < 0
    lesser, greater = np.where(swap, second, first), np.where(swap, first, second)
    change = greater - lesser
    kinds, counts = np.unique(change[change.any(axis=1)], axis=0, return_counts=True)
    moved = np.concatenate(
        [
            rng.binomial(counts, 0.5, size=(number, len(kinds))) @ kinds
            for number in _chunks(resamples, len(kinds))
        ]
    )
    gained = np.stack([lesser.sum(axis=0) + moved, greater.sum(axis=0) - moved], axis=1)
    return _ratios(gained, stratum.possible.sum(axis=0)[None, None])


def _chunks(resamples: int, width: int) -> list[int]:
    """How many resamples at once, each drawing `width` numbers."""
    most = max(1, CELLS // max(1, width))
    return [min(most, resamples - start) for start in range(0, resamples, most)]


def _ratios(gained: Floats, possible: Floats) -> Floats:
    return (gained / possible).mean(axis=-1)


def _quantile() -> float:
    """Of the normal distribution, for a two-sided interval of level `LEVEL`."""
    return NormalDist().inv_cdf((1 + LEVEL) / 2)
