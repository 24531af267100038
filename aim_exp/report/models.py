"""A record's models and their scores, with errors, as tables and figures need them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from aim_exp.records import RunRecord

Role = Literal["base", "expert", "reference", "merged"]


@dataclass(frozen=True)
class Estimate:
    """A score in [0, 1] and its standard error, None where it is unknown."""

    value: float
    stderr: float | None = None

    def minus(self, other: Estimate) -> Estimate:
        """The difference; its error takes the two as independent, which errs on the wide side."""
        error = _root_of_squares((self.stderr, other.stderr))
        return Estimate(self.value - other.value, error)


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


def merged_model(record: RunRecord) -> Model | None:
    """The merged model, if it was scored."""
    if not record.scores:
        return None
    return Model("merged", "merged", _estimates(record.scores, record.stderr))


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
