"""Two arms of a study, compared over its replicates.

A replicate is a whole population, trained from a draw of its own and merged in both arms. It is
what a claim about a method, rather than about these weights, must generalise over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from aim_exp.statistics.paired import LEVEL, Floats

MIN_REPLICATES = 5
"""Below this many there are values, and no interval over replicates."""


class Design(StrEnum):
    """How a comparison over replicates was made."""

    VALUES = "values"
    """No interval: too few replicates, or items that are not at hand."""
    PAIRED_T = "paired t"
    CROSSED_BOOTSTRAP = "crossed bootstrap"


class Conclusion(StrEnum):
    """What a comparison says about a difference, given a margin."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class ReplicatedDifference:
    """One arm minus the other, item by item, of each benchmark; benchmarks weigh the same.

    Each of `benchmarks` is [replicates, items]. `shared_items`: a column is the same item in all
    replicates; else every replicate has items of its own, none of them another's.
    """

    benchmarks: Sequence[Floats]
    shared_items: bool

    def __post_init__(self) -> None:
        """All have the same replicates, and numbers."""
        assert {table.ndim for table in self.benchmarks} == {2}
        assert len({len(table) for table in self.benchmarks}) == 1
        assert all(np.isfinite(table).all() for table in self.benchmarks)

    @property
    def values(self) -> Floats:
        """[replicates]: the average over benchmarks."""
        return np.mean([table.mean(axis=1) for table in self.benchmarks], axis=0)


@dataclass(frozen=True)
class ReplicateTest:
    """A mean difference over replicates, its interval of level `LEVEL`, and p of no difference.

    Where there are too few replicates, `stderr`, `low`, `high` and `p` are None. `deviation` is
    that between the replicates' `values` (None of a single one).
    """

    difference: float
    values: tuple[float, ...]
    design: Design
    deviation: float | None
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def n(self) -> int:
        """The number of replicates, which is what counts."""
        return len(self.values)


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests against a margin: `p` is the larger one's, None without an interval.

    `low` and `high` are those of level 1 - 2 (1 - `LEVEL`): inside the margin where p is small.
    """

    verdict: Conclusion
    margin: float
    low: float | None
    high: float | None
    p: float | None


def compare_replicates(data: ReplicatedDifference) -> ReplicateTest:
    """Whether the difference is more than the luck of replicates, and of items that they share.

    With items of its own each replicate is one independent number: the paired t test. Shared
    items are a second sample, whose luck is the same in all replicates; a paired t would cover
    the difference on these items only. There the standard error is that of the crossed bootstrap:
    replicates and items are resampled independently, one draw of items for all (Owen 2007, "The
    pigeonhole bootstrap"). It is set against t's quantiles with one degree of freedom fewer than
    replicates, and widened by sqrt(n / (n - 1)): of few replicates, percentiles cover too little.
    """
    values = data.values
    n = len(values)
    deviation = float(values.std(ddof=1)) if n > 1 else None
    mean, whole = float(values.mean()), tuple(map(float, values))
    if n < MIN_REPLICATES or deviation is None:
        return ReplicateTest(mean, whole, Design.VALUES, deviation)
    if data.shared_items:
        design, stderr = Design.CROSSED_BOOTSTRAP, _crossed_stderr(data)
    else:
        design, stderr = Design.PAIRED_T, deviation / math.sqrt(n)
    low, high = _interval(mean, stderr, n, LEVEL)
    p = min(1.0, 2 * _tail(abs(mean), stderr, n))
    return ReplicateTest(mean, whole, design, deviation, stderr, low, high, p)


def equivalence(test: ReplicateTest, margin: float) -> Equivalence:
    """What the comparison says, given a `margin` below which a difference does not matter.

    `margin` is given beforehand, in the units of the difference. Equivalent: the difference is
    shown to be within the margin (Schuirmann 1987), even if it is shown not to be 0 as well.
    Better or worse: it is shown not to be 0, and not to be within the margin. All at 1 - `LEVEL`.
    """
    assert margin > 0, margin
    if test.stderr is None:
        return Equivalence(Conclusion.INCONCLUSIVE, margin, None, None, None)
    low, high = _interval(test.difference, test.stderr, test.n, 2 * LEVEL - 1)
    p = _tail(margin - abs(test.difference), test.stderr, test.n)
    assert test.p is not None
    verdict = Conclusion.INCONCLUSIVE
    if p < 1 - LEVEL:
        verdict = Conclusion.EQUIVALENT
    elif test.p < 1 - LEVEL:
        verdict = Conclusion.BETTER if test.difference > 0 else Conclusion.WORSE
    return Equivalence(verdict, margin, low, high, p)


def _crossed_stderr(data: ReplicatedDifference) -> float:
    """The crossed bootstrap's standard error, exactly: what endless resamples would give.

    A resample's mean is a sum over cells of (times the replicate is drawn) x (times the item is)
    x the cell. Times drawn are multinomial: their products have the mean 1 - 1/n, of one with
    itself 2 - 1/n. Items are drawn for each benchmark apart, replicates for all at once.
    """
    n, variance = len(data.benchmarks[0]), 0.0
    for table in data.benchmarks:
        items = table.shape[1]
        rows, columns = 1 - 1 / n, 1 - 1 / items
        second = (
            rows * columns * table.sum() ** 2
            + rows * (table.sum(axis=0) ** 2).sum()
            + columns * (table.sum(axis=1) ** 2).sum()
            + (table**2).sum()
        )
        over_replicates = table.mean(axis=1).var() / n
        variance += second / table.size**2 - table.mean() ** 2 - over_replicates
    variance = variance / len(data.benchmarks) ** 2 + data.values.var() / n
    return math.sqrt(max(variance, 0.0) * n / (n - 1))


def _interval(mean: float, stderr: float, n: int, level: float) -> tuple[float, float]:
    from scipy.stats import t

    reach = float(t.ppf((1 + level) / 2, n - 1)) * stderr
    return mean - reach, mean + reach


def _tail(distance: float, stderr: float, n: int) -> float:
    """The chance of being `distance` or further above the truth; negative ones are likely."""
    from scipy.stats import t

    if stderr == 0:
        return float(distance <= 0)
    return float(t.sf(distance / stderr, n - 1))
