"""Tests over replicates: against scipy and obvious code, and on simulated studies."""

from math import inf, isnan, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats
from simulated import Study, gain_coverage, paired_t_coverage, rates

from aim_exp.pareto import non_dominated
from aim_exp.statistics import (
    DISCORDANCES,
    MIN_REPLICATES,
    Conclusion,
    Design,
    ReplicatedDifference,
    ReplicateTest,
    Stratum,
    clustered_stderr,
    compare_replicates,
    detectable_at_discordance,
    equivalence,
    noise_gain,
    nondominated_probability,
    smallest_detectable,
)

ROUNDS = 1500
ERRORS = 2 * sqrt(0.05 * 0.95 / ROUNDS)
"""Two Monte Carlo errors of a share of 5 %."""


def own(values: list[float]) -> ReplicateTest:
    """The test of replicates with one item each, of their own."""
    return compare_replicates(ReplicatedDifference([np.array(values)[:, None]], False))


# Simulated studies


@pytest.mark.parametrize("effect", [0.0, 0.05])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("replicates", [5, 12])
def test_level_and_coverage_are_what_they_say(replicates: int, shared: bool, effect: float) -> None:
    found = rates(Study(replicates, shared, effect), ROUNDS)
    assert found.covered >= 0.95 - ERRORS
    if effect == 0:
        assert found.found <= 0.05 + ERRORS


def test_a_planted_effect_is_found() -> None:
    assert rates(Study(12, True, 0.05), 200).found > 0.7
    assert rates(Study(12, False, 0.05), 200).found > 0.9


def test_a_paired_t_would_cover_too_little_of_shared_items() -> None:
    assert paired_t_coverage(Study(50, True, 0.0), 200) < 0.9


def test_the_percentile_bootstrap_of_a_gain_near_0_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    near, far = gain_coverage(200), gain_coverage(200, lead=0.2)
    with capsys.disabled():
        print(f" [covers {near:.0%} of a gain of 0, {far:.0%} of one of .2]", end="")
    assert near < 0.5 < 0.85 < far


# Estimators


def test_own_items_are_a_paired_t() -> None:
    rng = np.random.default_rng(0)
    tables = [rng.normal(0.02, 0.1, (7, items)) for items in (30, 50)]
    test = compare_replicates(ReplicatedDifference(tables, False))
    values = [np.mean([table[row].mean() for table in tables]) for row in range(7)]
    scipys: Any = stats.ttest_1samp(values, 0.0)
    interval = scipys.confidence_interval()
    assert test.design is Design.PAIRED_T
    assert test.n == 7
    assert test.values == pytest.approx(values)
    assert test.p == pytest.approx(scipys.pvalue)
    assert (test.low, test.high) == pytest.approx((interval.low, interval.high))


def test_the_crossed_bootstrap_is_that_of_obvious_code() -> None:
    rng = np.random.default_rng(0)
    tables = [
        rng.normal(size=(6, 1)) + rng.normal(size=items) + rng.normal(size=(6, items))
        for items in (20, 40)
    ]
    test = compare_replicates(ReplicatedDifference(tables, True))
    means = []
    for _ in range(4000):
        rows = rng.integers(6, size=6)
        places = [rng.integers(table.shape[1], size=table.shape[1]) for table in tables]
        pairs = zip(tables, places, strict=True)
        means.append(np.mean([table[rows][:, columns].mean() for table, columns in pairs]))
    assert test.design is Design.CROSSED_BOOTSTRAP
    assert test.stderr == pytest.approx(np.std(means) * sqrt(6 / 5), rel=0.04)
    assert test == compare_replicates(ReplicatedDifference(tables, True))


@pytest.mark.parametrize("n", [1, MIN_REPLICATES - 1])
def test_few_replicates_have_values_and_no_interval(n: int) -> None:
    test = own([0.1] * n)
    assert (test.design, test.values, test.n) == (Design.VALUES, (0.1,) * n, n)
    assert (test.stderr, test.low, test.high, test.p) == (None,) * 4
    assert (test.deviation is None) == (n == 1)
    assert equivalence(test, 1.0).verdict is Conclusion.INCONCLUSIVE


def test_replicates_that_all_agree_are_sure() -> None:
    assert own([0.5] * 6).p == 0
    assert own([0.0] * 6).p == 1
    assert equivalence(own([0.0] * 6), 0.01).verdict is Conclusion.EQUIVALENT


# Equivalence


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([2.0, 3.0, 2.5, 4.0, 3.0], Conclusion.BETTER),
        ([-2.0, -3.0, -2.5, -4.0, -3.0], Conclusion.WORSE),
        ([0.1, -0.1, 0.2, -0.2, 0.0], Conclusion.EQUIVALENT),
        ([0.3, 0.35, 0.3, 0.25, 0.3], Conclusion.EQUIVALENT),  # not 0, and too small to matter
        ([3.0, -3.0, 2.0, -1.0, 0.5], Conclusion.INCONCLUSIVE),
    ],
)
def test_verdicts(values: list[float], verdict: Conclusion) -> None:
    test = equivalence(own(values), 1.0)
    assert test.verdict is verdict
    upper: Any = stats.ttest_1samp(values, 1.0, alternative="less")
    lower: Any = stats.ttest_1samp(values, -1.0, alternative="greater")
    assert test.p == pytest.approx(max(upper.pvalue, lower.pvalue))
    assert test.low is not None
    assert test.high is not None
    assert (test.low > -1 and test.high < 1) == (max(upper.pvalue, lower.pvalue) < 0.05)


def test_equivalence_is_wrongly_claimed_at_most_at_its_level() -> None:
    rng = np.random.default_rng(1)
    tests = [own(values) for values in rng.normal(1.0, 0.5, (ROUNDS, 8)).tolist()]
    claimed = [equivalence(test, 1.0).verdict is Conclusion.EQUIVALENT for test in tests]
    assert 0.01 < np.mean(claimed) <= 0.05 + ERRORS


# Families of items


def test_families_widen_the_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=60)
    usual = values.std(ddof=1) / sqrt(60)
    assert clustered_stderr(values, range(60)) == pytest.approx(usual)
    assert clustered_stderr(np.repeat(values, 4), np.repeat(range(60), 4)) == pytest.approx(usual)
    assert isnan(clustered_stderr(values, [0] * 60))


def test_a_clustered_interval_covers() -> None:
    rng = np.random.default_rng(0)
    families = np.repeat(np.arange(40), 5)
    covered = 0
    for _ in range(ROUNDS):
        values = rng.normal(size=40)[families] + rng.normal(size=200)
        covered += abs(values.mean()) <= 2.02 * clustered_stderr(values, families)
    assert covered / ROUNDS >= 0.95 - ERRORS


# The front


def strata(*models: np.ndarray) -> list[Stratum]:
    right = np.stack(models, axis=1)[:, :, None].astype(float)
    return [Stratum(right, np.ones((len(right), 1)))]


def test_the_probability_of_being_non_dominated() -> None:
    rng = np.random.default_rng(0)
    shares = ((0.9, 0.2), (0.2, 0.9), (0.6, 0.6), (0.55, 0.6), (0.1, 0.1))
    right = [[rng.random(80) < share for share in column] for column in zip(*shares, strict=True)]
    probabilities = nondominated_probability([strata(*models) for models in right])
    slow = []
    for _ in range(2000):
        scores = []
        for models in right:
            places = rng.integers(80, size=80)
            scores.append([model[places].mean() for model in models])
        slow.append(non_dominated(np.transpose(scores)))
    assert probabilities == pytest.approx(np.mean(slow, axis=0), abs=0.03)
    assert probabilities[0] == probabilities[1] == 1
    assert probabilities[4] == 0
    assert 0.05 < probabilities[3] < 0.95


def test_noise_alone_gives_a_gain() -> None:
    rng = np.random.default_rng(0)
    few = noise_gain([strata(rng.random(50) < 0.5) for _ in range(2)])
    many = noise_gain([strata(rng.random(5000) < 0.5) for _ in range(2)])
    assert 0 < many.mean < few.mean < few.high
    assert noise_gain([strata(np.ones(50))] * 2).high == 0


# Power


@pytest.mark.parametrize("n", [6, 12, 150])
def test_the_smallest_detectable_difference_is_found_four_times_of_five(n: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(smallest_detectable(2.0, n), 2.0, (4000, n))
    tests: Any = stats.ttest_1samp(values, 0, axis=1)
    assert np.mean(tests.pvalue < 0.05) == pytest.approx(0.8, abs=2 * sqrt(0.8 * 0.2 / 4000))


def test_what_can_be_detected_of_accuracies() -> None:
    for discordance in DISCORDANCES:
        detectable = detectable_at_discordance(discordance, 150)
        own_way = smallest_detectable(sqrt(discordance - detectable**2), 150)
        assert detectable == pytest.approx(own_way)
    assert detectable_at_discordance(0.1, 10_000) == pytest.approx(2.80 * sqrt(0.1 / 1e4), rel=0.01)
    assert smallest_detectable(1.0, 1) == inf
    assert smallest_detectable(0.0, 9) == 0
