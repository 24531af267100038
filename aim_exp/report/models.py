"""A record's models and their scores, with errors, as tables and figures need them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from aim_exp.pareto import hypervolume_gain
from aim_exp.store.records import RunRecord

GAIN_DRAWS = 200
"""Their standard deviation is known to 5 %; each takes two exact volumes, 0.1 ms."""

Role = Literal["base", "expert", "reference", "merged"]


@dataclass(frozen=True)
class Estimate:
    """A score in [0, 1] and its standard error, None where it is unknown."""

    value: float
    stderr: float | None = None


@dataclass(frozen=True)
class Model:
    """A model and its scores by benchmark."""

    name: str
    role: Role
    scores: Mapping[str, Estimate]

    @property
    def average(self) -> Estimate | None:
        """The plain mean over its benchmarks."""
        if not self.scores:
            return None
        count = len(self.scores)
        mean = sum(score.value for score in self.scores.values()) / count
        error = _root_of_squares(score.stderr for score in self.scores.values())
        return Estimate(mean, None if error is None else error / count)


def benchmarks(record: RunRecord) -> list[str]:
    """The benchmarks that a run scored, in its order."""
    scored = record.scores or next(iter((record.population_scores or {}).values()), {})
    return list(scored)


def asked(record: RunRecord) -> dict[str, dict[str, Any]]:
    """How each benchmark asks: equal where scores can be compared.

    The shots that its prompts turned out to have follow from it.
    """
    return {
        name: {key: value for key, value in about.items() if key != "num_fewshot"}
        for name, about in record.benchmarks.items()
    }


def merged_model(record: RunRecord) -> Model | None:
    """The merged model, if it was scored."""
    if not record.scores:
        return None
    return Model("merged", "merged", _estimates(record.scores, record.stderr))


def merge_metrics(record: RunRecord) -> dict[str, float | bool | None]:
    """What follows from the merged model's scores, by name; None where it is not known."""
    return {
        "average": record.average,
        "normalised_average": record.normalised_average,
        "gain_over_best_member": record.gain_over_best_member,
        "hypervolume": record.hypervolume,
        "hypervolume_gain": record.hypervolume_gain,
        "hypervolume_gain_population": record.hypervolume_gain_population,
        "on_front": None if record.on_front is None else "merged" in record.on_front,
    }


def population_models(record: RunRecord) -> list[Model]:
    """Base and experts as the run scored them."""
    errors = record.population_stderr or {}
    return [
        Model(name, "base" if name == "base" else "expert", _estimates(scores, errors.get(name)))
        for name, scores in (record.population_scores or {}).items()
    ]


def reference_models(record: RunRecord) -> list[Model]:
    """The models that were scored beside the population."""
    errors = record.reference_stderr or {}
    return [
        Model(name, "reference", _estimates(scores, errors.get(name)))
        for name, scores in (record.reference_scores or {}).items()
    ]


def gain_estimate(record: RunRecord) -> Estimate | None:
    """The hypervolume gain over base and the merged experts; None where nothing was scored.

    Its standard error is that of a parametric bootstrap: the scores of all models drawn from
    normal distributions with their own errors, independent of one another.
    """
    merged = merged_model(record)
    if merged is None or record.hypervolume_gain is None:
        return None
    rivals = ("base", *(record.population.get("merged") or ()))
    models = [merged, *(model for model in population_models(record) if model.name in rivals)]
    scores = [[model.scores[name] for name in merged.scores] for model in models]
    if any(score.stderr is None for row in scores for score in row):
        return Estimate(record.hypervolume_gain)
    about = [record.benchmarks.get(name, {}) for name in merged.scores]
    error = _gain_error(
        tuple(tuple(row) for row in scores),
        tuple(each.get("reference_point", 0.0) for each in about),
    )
    return Estimate(record.hypervolume_gain, error)


@cache
def _gain_error(scores: tuple[tuple[Estimate, ...], ...], reference: tuple[float, ...]) -> float:
    """`scores` are [models, benchmarks], the merged model first."""
    values = np.array([[score.value for score in row] for row in scores])
    errors = np.array([[score.stderr for score in row] for row in scores], dtype=float)
    noise = np.random.default_rng(0).standard_normal((GAIN_DRAWS, *values.shape))
    drawn = np.clip(values + errors * noise, 0.0, 1.0)
    return float(np.std([hypervolume_gain(each[0], each[1:], reference) for each in drawn], ddof=1))


def _estimates(
    scores: Mapping[str, float], errors: Mapping[str, float | None] | None
) -> dict[str, Estimate]:
    return {name: Estimate(value, (errors or {}).get(name)) for name, value in scores.items()}


def _root_of_squares(errors: Iterable[float | None]) -> float | None:
    total = 0.0
    for error in errors:
        if error is None:
            return None
        total += error**2
    return math.sqrt(total)
