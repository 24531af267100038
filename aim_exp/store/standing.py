"""Where a merged model stands among base and experts: averages, front, hypervolume gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean

from aim_exp.pareto import (
    MOST_OBJECTIVES,
    hypervolume,
    hypervolume_difference,
    hypervolume_gain,
    non_dominated,
)
from aim_exp.store.run_record import Standing
from aim_exp.types import Score

MOST_ERRORS = 3
"""Standard errors between a score and the expected one that chance does not explain."""
Scores = Mapping[str, float]
"""By benchmark, in [0, 1]."""


def standing(
    merged: Scores | None,
    members: Mapping[str, Scores],
    merged_experts: Sequence[str],
    specialty: Mapping[str, Sequence[str]],
    reference: Mapping[str, float],
) -> Standing:
    """Of `merged` (None: there is no merged model) among `members`, base and all experts.

    `merged_experts` are those that went into it; `specialty` maps an expert to its benchmarks;
    `reference` is the hypervolume's reference point, of the benchmarks that are objectives; of more
    than `MOST_OBJECTIVES` there are no hypervolumes.
    """
    benchmarks = list(reference)
    corner = [reference[b] for b in benchmarks]
    points = {name: [scores[b] for b in benchmarks] for name, scores in members.items()}
    population = list(points.values())
    measurable = len(benchmarks) <= MOST_OBJECTIVES
    if merged is None:
        volume = hypervolume(population, corner) if measurable else None
        return Standing(on_front=_front(points), hypervolume=volume)
    point = [merged[b] for b in benchmarks]
    own = [points["base"], *(points[name] for name in merged_experts)]
    scores = dict(zip(benchmarks, point, strict=True))
    return Standing(
        average=fmean(point),
        normalised_average=_normalised_average(scores, members, specialty),
        gain_over_best_member=fmean(point) - max(map(fmean, population)),
        on_front=_front({**points, "merged": point}),
        **(_volumes(point, own, population, corner) if measurable else {}),
    )


def _volumes(
    point: Sequence[float],
    own: Sequence[Sequence[float]],
    population: Sequence[Sequence[float]],
    corner: Sequence[float],
) -> dict[str, float]:
    return {
        "hypervolume": hypervolume([*population, point], corner),
        "hypervolume_gain": hypervolume_gain(point, own, corner),
        "hypervolume_gain_population": hypervolume_gain(point, population, corner),
        "hypervolume_difference": hypervolume_difference(point, own, corner),
    }


def _front(points: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    kept = non_dominated(list(points.values()))
    return tuple(name for name, on_front in zip(points, kept, strict=True) if on_front)


def _normalised_average(
    merged: Scores, members: Mapping[str, Scores], specialty: Mapping[str, Sequence[str]]
) -> float | None:
    """Mean of the score over the own expert's; None unless every benchmark has an expert."""
    owner = {b: expert for expert, benchmarks in specialty.items() for b in benchmarks}
    if not all(b in owner and members[owner[b]][b] > 0 for b in merged):
        return None
    return fmean(merged[b] / members[owner[b]][b] for b in merged)


def unexpected(
    expected: Mapping[str, Scores], measured: Mapping[str, Mapping[str, Score]]
) -> list[str]:
    """A line for each score too far from the expected one, by model and benchmark.

    Far is more than `MOST_ERRORS` standard errors: the larger of the measured one and the
    binomial one at the expected score, since that of a score of 0 or 1 is measured as 0.
    """
    lines = []
    for model, scores in expected.items():
        for benchmark in (b for b in scores if b in measured.get(model, {})):
            p, score = scores[benchmark], measured[model][benchmark]
            stderr = max(score.stderr or 0.0, sqrt(p * (1 - p) / score.n))
            if abs(score.value - p) > MOST_ERRORS * stderr:
                lines.append(
                    f"{model} on {benchmark}: {100 * score.value:.1f} is more than {MOST_ERRORS} "
                    f"standard errors ({100 * stderr:.1f}) from the published {100 * p:.1f}; "
                    "the set-up differs from the published one"
                )
    return lines
