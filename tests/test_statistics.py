"""Paired tests against slow, obvious code, tables worked out by hand, and simulated data."""

from math import comb

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from aim_exp.statistics import (
    LEVEL,
    MOST_SWAPS,
    RESAMPLES,
    Stratum,
    bootstrap_scores,
    can_reject,
    holm,
    mcnemar,
    resampling_test,
    swapped_scores,
    swaps_for,
)


def answers(both: int, lost: int, won: int, neither: int) -> tuple[list[int], list[int]]:
    """Two models' answers with these counts of the four kinds of items."""
    before = [1] * both + [1] * lost + [0] * won + [0] * neither
    after = [1] * both + [0] * lost + [1] * won + [0] * neither
    return before, after


def accuracy(*models: ArrayLike) -> Stratum:
    gained = np.array(models, dtype=float).T[:, :, None]
    return Stratum(gained, np.ones((len(gained), 1)))


# McNemar


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (0, 5, 2 / 2**5),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
        (8, 2, 2 * (1 + 10 + 45) / 2**10),
        (5, 5, 1.0),
        (6, 9, 2 * sum(comb(15, k) for k in range(7)) / 2**15),
    ],
)
def test_mcnemar_is_the_binomial_sum(lost: int, won: int, p: float) -> None:
    test = mcnemar(*answers(20, lost, won, 30))
    assert test.p == pytest.approx(p)
    assert test.difference == pytest.approx((won - lost) / (50 + lost + won))
    assert test.low < test.difference < test.high


def test_what_both_answer_alike_does_not_matter_to_p() -> None:
    assert mcnemar(*answers(0, 3, 11, 0)).p == mcnemar(*answers(500, 3, 11, 80)).p


def test_the_interval_of_a_paired_difference_by_hand() -> None:
    """2 lost and 8 won of 98 items: 3 / 100 and 9 / 100 after the adjustment."""
    test = mcnemar(*answers(40, 2, 8, 48))
    margin = 1.959964 * np.sqrt((0.03 + 0.09 - 0.06**2) / 100)
    assert (test.low, test.high) == pytest.approx((0.06 - margin, 0.06 + margin), abs=1e-6)


@pytest.mark.parametrize(("lost", "won"), [(0.05, 0.05), (0.02, 0.12), (0.2, 0.3)])
def test_the_interval_covers_and_the_test_keeps_its_level(lost: float, won: float) -> None:
    rng = np.random.default_rng(0)
    rounds, items = 600, 120
    covered = rejected = 0
    for kinds in rng.choice(3, size=(rounds, items), p=[lost, won, 1 - lost - won]):
        test = mcnemar(kinds == 0, kinds == 1)
        covered += test.low <= won - lost <= test.high
        rejected += test.p < 0.05
    assert 0.92 <= covered / rounds <= 0.99
    if lost == won:
        assert rejected / rounds <= 0.06


# The bootstrap


def slow_bootstrap(stratum: Stratum, resamples: int) -> np.ndarray:
    """Items drawn one by one."""
    rng = np.random.default_rng(1)
    items = len(stratum.gained)
    rows = []
    for _ in range(resamples):
        places = rng.integers(items, size=items)
        parts = stratum.gained[places].sum(axis=0) / stratum.possible[places].sum(axis=0)
        rows.append(parts.mean(axis=1))
    return np.array(rows)


def uneven(rng: np.random.Generator, items: int = 40) -> Stratum:
    """Three models, two parts: a share, and one of up to four instructions per item."""
    possible = np.stack([np.ones(items), rng.integers(1, 5, items)], axis=1)
    gained = rng.binomial(possible[:, None].astype(int), 0.4, size=(items, 3, 2)).astype(float)
    return Stratum(gained, possible)


@pytest.mark.parametrize("items_per_kind", [0, 1000], ids=["by kind", "by item"])
def test_the_bootstrap_draws_items(items_per_kind: int, monkeypatch) -> None:
    monkeypatch.setattr("aim_exp.statistics.paired.ITEMS_PER_KIND", items_per_kind)
    stratum = uneven(np.random.default_rng(0))
    fast, slow = bootstrap_scores([stratum], 20_000), slow_bootstrap(stratum, 5_000)
    assert fast.shape == (20_000, 3)
    assert fast.mean(axis=0) == pytest.approx(stratum.scores, abs=0.003)
    assert fast.mean(axis=0) == pytest.approx(slow.mean(axis=0), abs=0.005)
    assert np.cov(fast.T) == pytest.approx(np.cov(slow.T), rel=0.1, abs=2e-4)
    for share in (2.5, 50, 97.5):
        assert np.percentile(fast, share, axis=0) == pytest.approx(
            np.percentile(slow, share, axis=0), abs=0.01
        )


def test_a_paired_difference_is_that_of_scipy() -> None:
    before, after = answers(40, 6, 16, 38)
    draws = bootstrap_scores([accuracy(before, after)])
    test = resampling_test(0.1, draws[:, 1] - draws[:, 0], [0.0])
    difference = (np.array(after) - np.array(before),)
    scipys = stats.bootstrap(
        difference, np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng()
    ).confidence_interval
    assert (test.low, test.high) == pytest.approx((scipys.low, scipys.high), abs=0.006)


def test_strata_are_drawn_within_and_weighted() -> None:
    easy, hard = accuracy([1] * 30), accuracy([0, 1] * 10)
    assert (bootstrap_scores([easy], 50) == 1).all()
    weighted = [
        Stratum(easy.gained, easy.possible, 0.75),
        Stratum(hard.gained, hard.possible, 0.25),
    ]
    draws = bootstrap_scores(weighted, 10_000)
    assert draws.mean() == pytest.approx(0.75 + 0.25 / 2, abs=0.002)
    assert draws.std() == pytest.approx(0.25 * np.sqrt(0.25 / 20), rel=0.03)


@pytest.mark.parametrize("items_per_kind", [0, 1000], ids=["by kind", "by item"])
def test_the_same_seed_gives_the_same_numbers_however_they_are_chunked(
    items_per_kind: int, monkeypatch
) -> None:
    monkeypatch.setattr("aim_exp.statistics.paired.ITEMS_PER_KIND", items_per_kind)
    stratum = uneven(np.random.default_rng(3))
    whole = bootstrap_scores([stratum], 300)
    monkeypatch.setattr("aim_exp.statistics.paired.CELLS", 1)
    assert (bootstrap_scores([stratum], 300) == whole).all()


# Swaps


def test_swapping_the_answers_of_one_accuracy_is_mcnemars_test() -> None:
    for lost, won in ((0, 0), (0, 6), (3, 11), (5, 5)):
        before, after = answers(20, lost, won, 30)
        swapped = swapped_scores([accuracy(before, after)], 40_000)
        observed = (won - lost) / len(before)
        test = resampling_test(observed, [observed], swapped[:, 1] - swapped[:, 0])
        assert test.p == pytest.approx(mcnemar(before, after).p, abs=0.008)


def test_swaps_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    before, shift = rng.random(25), rng.normal(0.08, 0.2, 25)
    after = before + shift
    stratum = Stratum(np.stack([before, after], axis=1)[:, :, None], np.ones((25, 1)))
    swapped = swapped_scores([stratum], 40_000)
    assert swapped.sum(axis=1) == pytest.approx(before.mean() + after.mean())
    ours = resampling_test(shift.mean(), [0.0], swapped[:, 1] - swapped[:, 0]).p
    theirs = stats.permutation_test(
        (before, after),
        lambda first, second: second.mean() - first.mean(),
        permutation_type="samples", n_resamples=20_000, rng=rng,
    ).pvalue  # fmt: skip
    assert ours == pytest.approx(theirs, abs=0.01)


def test_swaps_keep_the_weights_of_the_strata() -> None:
    hard = accuracy([0] * 20, [0, 1] * 10)
    weighted = [Stratum(hard.gained, hard.possible, weight) for weight in (0.75, 0.25)]
    swapped = swapped_scores(weighted, 20_000)
    assert swapped.mean(axis=0) == pytest.approx([0.25, 0.25], abs=0.003)
    variance = (0.75**2 + 0.25**2) * 10 / 4 / 20**2
    assert swapped.var(axis=0) == pytest.approx([variance] * 2, rel=0.05)


def test_p_counts_the_observation_and_the_interval_is_percentiles() -> None:
    swapped = np.arange(-49.0, 50.0)  # 99 values
    test = resampling_test(48.0, np.arange(101.0), swapped)
    assert test.p == pytest.approx((4 + 1) / 100)
    assert (test.low, test.high) == pytest.approx((2.5, 97.5))
    assert resampling_test(1.0, [1.0], np.zeros(99)).p == 1 / 100
    assert resampling_test(0.0, [0.0], np.zeros(99)).p == 1.0


def test_the_bootstrap_covers_and_swaps_reject_as_often_as_they_say() -> None:
    """The average over two benchmarks, whose accuracies differ in few items."""
    rng = np.random.default_rng(0)
    rounds = 500
    covered = rejected = 0
    for gain in (0.06, 0.0):
        for _ in range(rounds):
            benchmarks = []
            for items in (60, 120):
                kinds = rng.choice(3, size=items, p=[0.06, 0.06 + gain, 0.88 - gain])
                benchmarks.append([accuracy(kinds == 0, kinds == 1)])
            observed = np.mean([b[0].scores for b in benchmarks], axis=0)
            draws = np.mean([bootstrap_scores(b, 400, rng) for b in benchmarks], axis=0)
            swapped = np.mean([swapped_scores(b, 400, rng) for b in benchmarks], axis=0)
            test = resampling_test(
                observed[1] - observed[0], draws[:, 1] - draws[:, 0], swapped[:, 1] - swapped[:, 0]
            )
            covered += gain > 0 and test.low <= gain <= test.high
            rejected += gain == 0 and test.p < 0.05
    assert 0.92 <= covered / rounds <= 0.98
    assert 0.02 <= rejected / rounds <= 0.075


# Holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_rejects_what_its_steps_reject() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        ps = (rng.random(8) ** 3).tolist()
        rejected = set()
        for step, index in enumerate(np.argsort(ps)):  # as Holm wrote it down
            if ps[index] >= 0.05 / (8 - step):
                break
            rejected.add(int(index))
        assert {i for i, p in enumerate(holm(ps)) if p < 0.05} == rejected


@pytest.mark.parametrize("comparisons", [1, 6, 100, 101, 300, 1000, 8000])
def test_holm_can_reject_one_of_many_swap_tests(comparisons: int) -> None:
    swaps = swaps_for(comparisons)
    assert RESAMPLES <= swaps <= MOST_SWAPS
    clear = resampling_test(1.0, [1.0], np.zeros(swaps))
    assert holm([clear.p, *[1.0] * (comparisons - 1)])[0] < 1 - LEVEL
    assert can_reject(comparisons)


def test_more_than_any_number_of_swaps_could_reject() -> None:
    assert not can_reject(8001)
    assert swaps_for(8001) == MOST_SWAPS


def test_answers_that_are_all_alike_cannot_be_swapped() -> None:
    swapped = swapped_scores([accuracy(*answers(3, 0, 0, 5))], 20)
    assert (swapped == 3 / 8).all()
