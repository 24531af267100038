"""Who is on a Pareto front, and what a hypervolume gain is worth, given the luck of the items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from aim_exp.pareto import hypervolume_gains
from aim_exp.statistics.paired import RESAMPLES, SEED, Floats, Stratum, bootstrap_scores


@dataclass(frozen=True)
class NoiseGain:
    """The hypervolume gain of a model that is no better than a member, by luck alone.

    `mean` and `high` (the quantile .95) over resamples, of the member that gains most so.
    """

    mean: float
    high: float


def nondominated_probability(benchmarks: Sequence[Sequence[Stratum]]) -> Floats:
    """[models]: how often each is on the front when the items are drawn again.

    `benchmarks` holds each benchmark's strata, of the same models in the same order. All get the
    same items in a resample. A model is on the front where no other one is at least as good
    everywhere and better somewhere.
    """
    scores = _resampled(benchmarks, np.random.default_rng(SEED))
    models = scores.shape[1]
    dominated = np.zeros(scores.shape[:2], dtype=bool)
    for one in range(models):
        for other in range(models):
            above = scores[:, other] >= scores[:, one]
            better = scores[:, other] > scores[:, one]
            dominated[:, one] |= above.all(axis=1) & better.any(axis=1)
    return 1 - dominated.mean(axis=0)


def noise_gain(benchmarks: Sequence[Sequence[Stratum]], reference: ArrayLike = 0.0) -> NoiseGain:
    """The gain that noise alone gives: that of a second draw of one of the population's members.

    `benchmarks` as for `nondominated_probability`, of the population. A gain is never negative, so
    that its bootstrap has no centre at 0, and its percentiles no level there: this stands beside.
    """
    rng = np.random.default_rng(SEED)
    population, again = _resampled(benchmarks, rng), _resampled(benchmarks, rng)
    gains = np.stack(
        [
            hypervolume_gains(again[:, member], population, reference)
            for member in range(population.shape[1])
        ]
    )
    most = gains[gains.mean(axis=1).argmax()]
    return NoiseGain(float(most.mean()), float(np.quantile(most, 0.95)))


def _resampled(benchmarks: Sequence[Sequence[Stratum]], rng: np.random.Generator) -> Floats:
    """[resamples, models, benchmarks]."""
    return np.stack([bootstrap_scores(strata, RESAMPLES, rng) for strata in benchmarks], axis=2)
