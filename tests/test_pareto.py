"""Front and hypervolume against exact, slow versions, and against the paper's table."""

import csv
import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from aim_exp.pareto import (
    MANY,
    MOST_OBJECTIVES,
    hypervolume,
    hypervolume_difference,
    hypervolume_gain,
    hypervolume_gains,
    non_dominated,
)
from aim_exp.report.published import FILE, PUBLISHED_POPULATIONS
from aim_exp.store.standing import standing

BENCHMARKS = ("humaneval", "mbpp", "mmlu", "math", "gsm8k", "ifeval")


def exact_hypervolume(points: NDArray[np.float64], reference: float) -> float:
    """Inclusion and exclusion over all subsets of boxes."""
    sizes = np.maximum(points - reference, 0)
    return sum(
        (-1) ** (count + 1) * np.min(subset, axis=0).prod()
        for count in range(1, len(sizes) + 1)
        for subset in itertools.combinations(sizes, count)
    )


@pytest.mark.parametrize("d", [1, 2, 3, 6])
@pytest.mark.parametrize("reference", [0.0, 0.3])
def test_hypervolume_is_exact(d: int, reference: float) -> None:
    points = np.random.default_rng(d).random((7, d))
    assert hypervolume(points, reference) == pytest.approx(exact_hypervolume(points, reference))


def test_front_is_what_nothing_dominates() -> None:
    points = np.random.default_rng(0).integers(0, 4, (60, 3)) / 4
    expected = [
        not any((other >= point).all() and (other > point).any() for other in points)
        for point in points
    ]
    assert non_dominated(points).tolist() == expected
    assert non_dominated([[0.5, 0.5], [0.5, 0.5]]).all()


def test_gain_is_the_root_of_the_difference() -> None:
    assert hypervolume_gain([0.5, 0.5], [[1.0, 0.25], [0.25, 1.0]]) == pytest.approx(0.25)
    assert hypervolume_difference([0.5, 0.5], [[1.0, 0.25], [0.25, 1.0]]) == pytest.approx(0.0625)
    assert hypervolume_gain([0.2, 0.2], [[0.5, 0.5]]) == 0
    assert hypervolume_gain([0.5, 0.5], np.zeros((0, 2))) == pytest.approx(0.5)
    assert hypervolume_gain([0.5, 0.5], [[0.2, 0.2]], reference=[0.1, 0.3]) == pytest.approx(
        np.sqrt(0.4 * 0.2)
    )


@pytest.mark.parametrize("d", [1, 2, 6])
@pytest.mark.parametrize("size", [0, 1, 4, MANY - 1, MANY])
@pytest.mark.parametrize("reference", [0.0, 0.3])
def test_gains_at_once_are_the_gains_one_by_one(d: int, size: int, reference: float) -> None:
    rng = np.random.default_rng(size)
    points, populations = rng.random((40, d)), rng.random((40, size, d))
    corner = np.linspace(0, reference, d)
    for given in (populations, populations[:1]):
        own = np.broadcast_to(given, populations.shape)
        expected = [hypervolume_gain(*pair, corner) for pair in zip(points, own, strict=True)]
        assert hypervolume_gains(points, given, corner) == pytest.approx(expected, abs=1e-9)
    assert (hypervolume_gains(points, points[:, None]) == 0).all()


@pytest.mark.parametrize(
    ("points", "message"),
    [([[0.5, np.nan]], "NaN"), ([[0.5, np.inf]], "NaN"), ([[52.0, 41.0]], "divide percentages")],
)
def test_scores_that_are_none_are_refused(points: list[list[float]], message: str) -> None:
    for call in (non_dominated, hypervolume):
        with pytest.raises(ValueError, match=message):
            call(points)
    with pytest.raises(ValueError, match=message):
        hypervolume_gain(points[0], [[0.1, 0.1]])


@pytest.mark.parametrize("size", [1, MANY])
@pytest.mark.parametrize(("best", "other", "d"), [(0.09, 0.08, 12), (0.02, 0.011, 18)])
def test_small_scores_on_many_benchmarks_have_a_gain(
    best: float, other: float, d: int, size: int
) -> None:
    point, members = [best] * d, [[other] * d] * size
    expected = (best**d - other**d) ** (1 / d)
    assert hypervolume_gain(point, members) == pytest.approx(expected)
    assert hypervolume_gains([point], [members])[0] == pytest.approx(expected)
    assert hypervolume_gain(members[0], [point]) == 0


def test_a_reference_that_no_score_exceeds_is_refused() -> None:
    for reference in (1.5, [0.0, 50.0]):
        with pytest.raises(ValueError, match=r"reference=.*at most 1"):
            hypervolume_gain([0.5, 0.5], [[0.1, 0.1]], reference)
        with pytest.raises(ValueError, match=r"reference=.*at most 1"):
            hypervolume([[0.5, 0.5]], reference)


def test_more_benchmarks_than_a_volume_has_are_compared_without_it() -> None:
    names = [f"b{number}" for number in range(MOST_OBJECTIVES + 1)]
    members = {"base": dict.fromkeys(names, 0.4), "a": dict.fromkeys(names, 0.3)}
    found = standing(dict.fromkeys(names, 0.5), members, ["a"], {}, dict.fromkeys(names, 0.0))
    assert (found.average, found.on_front) == (pytest.approx(0.5), ("merged",))
    assert found.hypervolume is found.hypervolume_gain is found.hypervolume_difference is None
    assert standing(None, members, ["a"], {}, dict.fromkeys(names, 0.0)).hypervolume is None
    with pytest.raises(ValueError, match="at most 31"):
        hypervolume_gain([0.5] * 32, [[0.4] * 32])
    with pytest.raises(ValueError, match="at most 31"):
        hypervolume_gains([[0.5] * 32], [[[0.4] * 32]])


def test_the_published_table_is_reproduced() -> None:
    """All 40 gains and all 19 changes, to the two decimals that were printed."""
    with FILE.open() as file:
        rows = list(csv.DictReader(file))
    scores = {
        (row["method"], row["experts"], row["omega"]): [float(row[b]) / 100 for b in BENCHMARKS]
        for row in rows
    }
    gains: dict[tuple[str, str, str], float] = {}
    for row in (row for row in rows if row["method"]):
        key = row["method"], row["experts"], row["omega"]
        population = [scores["", m, ""] for m in PUBLISHED_POPULATIONS[row["experts"]]]
        gains[key] = hypervolume_gain(scores[key], population)
        assert f"{gains[key]:.2f}" == row["hv_gain"], key
    changes = 0
    for row in (row for row in rows if row["hv_gain_change_percent"]):
        plain = gains[row["method"], row["experts"], ""]
        change = 100 * (gains[row["method"], row["experts"], row["omega"]] / plain - 1)
        assert f"{change:.2f}" == row["hv_gain_change_percent"], row
        changes += 1
    assert (len(gains), changes) == (40, 19)


def test_comparison() -> None:
    members = {
        "base": {"x": 0.2, "y": 0.2},
        "a": {"x": 0.8, "y": 0.1},
        "b": {"x": 0.1, "y": 0.5},
    }
    found = standing(
        {"x": 0.4, "y": 0.4}, members, ["b"], {"a": ["x"], "b": ["y"]}, {"x": 0, "y": 0}
    )
    assert found.average == pytest.approx(0.4)
    assert found.normalised_average == pytest.approx((0.4 / 0.8 + 0.4 / 0.5) / 2)
    assert found.gain_over_best_member == pytest.approx(0.4 - 0.45)
    assert found.on_front == ("a", "b", "merged")
    # Base and b cover .04 + .05 - .02 = .07, with the merge .16 + .01 = .17; a adds .04 more.
    assert found.hypervolume_difference == pytest.approx(0.10)
    assert found.hypervolume_gain == pytest.approx(0.10**0.5)
    assert found.hypervolume == pytest.approx(0.21)
    without = standing(None, members, ["b"], {}, {"x": 0, "y": 0})
    assert without.on_front == ("base", "a", "b")
    assert without.hypervolume_gain is None
