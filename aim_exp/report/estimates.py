"""Quantities of a row: means over its draws, inwards out, with deviation and standard error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from aim_exp.pareto import hypervolume_gains
from aim_exp.report.draws import LEVELS, Draw
from aim_exp.report.grouped import grouped

AVERAGE, GAIN = "average", "hypervolume gain"
"""Quantities beside the benchmarks; no benchmark is called so."""
GAIN_DRAWS = 200
"""Their standard deviation is known to 5 %."""


@dataclass(frozen=True)
class Estimate:
    """A quantity of one model, or the mean of it over `n` draws. Scores lie in [0, 1]."""

    mean: float
    deviation: float | None
    """Sample standard deviation over the outermost draws; None of one."""
    stderr: float | None
    """Standard error of one draw over its benchmark items (root mean square); None: unknown."""
    n: int
    """Draws of the outermost level."""
    values: tuple[float, ...]
    """[n], of each of these draws, what lies inside it averaged."""


Score = tuple[float, float | None]
"""A value and its standard error."""


def estimates(draws: Sequence[Draw]) -> dict[str, Estimate]:
    """By benchmark, then `AVERAGE` and, of merges, `GAIN`; empty where nothing was scored.

    A model that several runs scored counts once.
    """
    scored = [draw for draw in draws if draw.model.scores]
    different = {tuple(s.key for s in draw.model.scores.values()): draw for draw in scored[::-1]}
    quantities = [(draw, _quantities(draw)) for draw in list(different.values())[::-1]]
    names = dict.fromkeys(name for _, each in quantities for name in each)
    return {
        name: _estimate([(draw, each[name]) for draw, each in quantities if name in each])
        for name in names
    }


def _estimate(scores: Sequence[tuple[Draw, Score]]) -> Estimate:
    values = outermost_values([(draw, value) for draw, (value, _) in scores])
    errors = [error for _, (_, error) in scores]
    return Estimate(
        mean=fmean(values),
        deviation=stdev(values) if len(values) > 1 else None,
        stderr=_root_of_squares(errors, len(errors)),
        n=len(values),
        values=tuple(values),
    )


def outermost_values(values: Sequence[tuple[Draw, float]]) -> list[float]:
    """Means at each value of the outermost level that varies, from the innermost level out."""
    cells = grouped((tuple(draw.value(level) for level in LEVELS), v) for draw, v in values)
    depth = next((i for i in range(len(LEVELS)) if len({cell[i] for cell in cells}) > 1), 0)
    for end in range(len(LEVELS) - 1, depth, -1):
        cells = grouped((cell[:end], fmean(inner)) for cell, inner in cells.items())
    return [fmean(inner) for inner in cells.values()]


def _quantities(draw: Draw) -> dict[str, Score]:
    scores: dict[str, Score] = {
        name: (score.value, score.stderr) for name, score in draw.model.scores.items()
    }
    own = [scores[name] for name in draw.objectives]
    error = _root_of_squares((error for _, error in own), len(own) ** 2)
    quantities = {**scores, AVERAGE: (fmean(value for value, _ in own), error)}
    gain = draw.record.standing.hypervolume_gain
    if draw.is_merge and gain is not None:
        quantities[GAIN] = (gain, gain_error(draw))
    return quantities


def gain_error(merge: Draw) -> float | None:
    """Of the hypervolume gain over base and the merged experts, from the items' errors.

    A parametric bootstrap: the scores of all models drawn from normal distributions with their own
    standard errors, independent of one another, and cut to [0, 1].
    """
    rivals = ("base", *merge.record.population.merged)
    models = [merge.model, *(m for m in merge.record.members if m.name in rivals)]
    scores = [[model.scores[name] for name in merge.objectives] for model in models]
    if any(score.stderr is None for row in scores for score in row):
        return None
    values = np.array([[score.value for score in row] for row in scores])
    errors = np.array([[score.stderr for score in row] for row in scores], dtype=float)
    noise = np.random.default_rng(0).standard_normal((GAIN_DRAWS, *values.shape))
    resampled = np.clip(values + errors * noise, 0.0, 1.0)
    corner = [merge.record.benchmarks[name].reference_point for name in merge.objectives]
    return float(np.std(hypervolume_gains(resampled[:, 0], resampled[:, 1:], corner), ddof=1))


def _root_of_squares(errors: Iterable[float | None], over: int) -> float | None:
    """The root of their squares' sum over `over`; None where one is unknown."""
    known = list(errors)
    squares = [error**2 for error in known if error is not None]
    return math.sqrt(sum(squares) / over) if len(squares) == len(known) else None
