"""Studies drawn with a known difference, and how often what is said of them is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aim_exp.pareto import hypervolume_gains
from aim_exp.statistics import (
    Floats,
    ReplicatedDifference,
    Stratum,
    bootstrap_scores,
    compare_replicates,
)

ITEMS = 150
BENCHMARKS = 2
DISCORDANCE = 0.2
"""The share of items that the arms answer differently."""


@dataclass(frozen=True)
class Study:
    """`effect` is planted; replicates and items shift it, with these standard deviations."""

    replicates: int
    shared_items: bool
    effect: float
    over_replicates: float = 0.02
    over_items: float = 0.08

    def draw(self, rng: np.random.Generator) -> ReplicatedDifference:
        """Differences of right and wrong answers: -1, 0 or 1."""
        shift = rng.normal(0, self.over_replicates, (self.replicates, 1))
        tables = [self._table(shift, rng) for _ in range(BENCHMARKS)]
        return ReplicatedDifference(tables, self.shared_items)

    def _table(self, shift: Floats, rng: np.random.Generator) -> Floats:
        rows = 1 if self.shared_items else self.replicates
        own = rng.normal(0, self.over_items, (rows, ITEMS))
        lean = np.clip(self.effect + shift + own, -DISCORDANCE, DISCORDANCE)
        chance = rng.random((self.replicates, ITEMS))
        won = chance < (DISCORDANCE + lean) / 2
        lost = chance > 1 - (DISCORDANCE - lean) / 2
        return won.astype(float) - lost


@dataclass(frozen=True)
class Rates:
    """Shares of the studies whose interval covers the effect, and that find one."""

    covered: float
    found: float


def rates(study: Study, rounds: int, seed: int = 1) -> Rates:
    """Of so many studies."""
    rng = np.random.default_rng(seed)
    tests = [compare_replicates(study.draw(rng)) for _ in range(rounds)]
    covered = [t.low <= study.effect <= t.high for t in tests if t.low is not None and t.high]
    found = [t.p < 0.05 for t in tests if t.p is not None]
    assert len(covered) == len(found) == rounds
    return Rates(float(np.mean(covered)), float(np.mean(found)))


def paired_t_coverage(study: Study, rounds: int, seed: int = 0) -> float:
    """Of a paired t that takes shared items for own ones: what it would wrongly claim."""
    rng = np.random.default_rng(seed)
    covered = 0
    for _ in range(rounds):
        tables = study.draw(rng).benchmarks
        test = compare_replicates(ReplicatedDifference(tables, shared_items=False))
        assert test.low is not None
        assert test.high is not None
        covered += test.low <= study.effect <= test.high
    return covered / rounds


def gain_coverage(rounds: int, items: int = ITEMS, lead: float = 0.0, seed: int = 0) -> float:
    """Of the percentile bootstrap of a hypervolume gain over one member, on six benchmarks.

    The merge's true scores are the member's (.6 each) plus `lead`.
    """
    rng = np.random.default_rng(seed)
    truth = hypervolume_gains([[0.6 + lead] * 6], [[[0.6] * 6]])[0]
    covered = 0
    for _ in range(rounds):
        scores = np.stack([_accuracy(rng, (0.6, 0.6 + lead), items) for _ in range(6)], axis=2)
        gains = hypervolume_gains(scores[:, 1], scores[:, :1])
        low, high = np.percentile(gains, [2.5, 97.5])
        covered += low <= truth <= high
    return covered / rounds


def _accuracy(rng: np.random.Generator, shares: Sequence[float], items: int) -> Floats:
    """[resamples, models]: a benchmark on which models are independently right so often."""
    right = rng.random((items, len(shares), 1)) < np.array(shares)[:, None]
    return bootstrap_scores([Stratum(right.astype(float), np.ones((items, 1)))], 400, rng)
