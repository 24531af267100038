"""A run as everybody below the command line knows it: what it depends on, and its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aim_exp.aim.calibration import CalibrationSet
from aim_exp.evaluate.evaluators import Evaluator
from aim_exp.population.sources import PopulationSource
from aim_exp.run.plan import Plan
from aim_exp.run.recipe import MERGED, Recipe
from aim_exp.store.entries import Store
from aim_exp.tracking.protocol import Tracker
from aim_exp.types import ModelRef

GIVEN_KEY = "method.path"
"""What weights merged elsewhere are called in errors."""
ADAPTER = "adapter"
"""Of `save_model`: the merge as an adapter of base."""
LAYOUTS = "layouts"
"""In the store, where models hold tensors of which names."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, ready to go: the recipe of its numbers, its plan, and what carries them out."""

    recipe: Recipe
    plan: Plan
    choices: Mapping[str, str]
    source: PopulationSource
    calibration: CalibrationSet
    evaluator: Evaluator
    tracker: Tracker
    store: Store
    device: str
    target_dtype: str | None
    """Of the merged weights; None: each tensor's in base."""
    save_model: bool | str
    """Whether the merge is written, or `ADAPTER`."""
    settings: Mapping[str, Any]
    """The whole configuration as plain data, for the record and the tracker."""

    @property
    def unscored(self) -> dict[str, frozenset[str]]:
        """By model that is still to be asked anything, the benchmarks."""
        missing = {
            model.name: frozenset(
                b for b, stage in model.scores.items() if not self.store.has(stage)
            )
            for model in self.plan.models
        }
        return {name: benchmarks for name, benchmarks in missing.items() if benchmarks}

    @property
    def coded(self) -> tuple[object, ...]:
        """The parts that change numbers by their code."""
        return self.recipe.method, self.calibration, self.evaluator

    @property
    def template(self) -> bool | str:
        """Which of a tokenizer's chat templates is meant: its usual one (True), or a name."""
        return self.recipe.suite.chat_template or True

    @property
    def saved_template(self) -> ModelRef | None:
        """The model whose chat template goes into the saved merge, where it is not base's."""
        source = self.recipe.population.chat_template.get(MERGED) if self.save_model else None
        return None if source is None else self.recipe.population.model(source)

    @property
    def template_sources(self) -> tuple[ModelRef, ...]:
        """The models whose chat template something takes."""
        return tuple(filter(None, (*self.recipe.templates.values(), self.saved_template)))
