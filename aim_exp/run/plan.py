"""From a run to the specs of its stages. Pure: nothing is read, trained or computed here.

This is where it is decided what a result depends on: too few ingredients in a key give
silently wrong numbers, too many lose the sharing between jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aim_exp.aim.relaxation import AimSettings
from aim_exp.merge.method import MergeMethod
from aim_exp.store.keys import StageSpec
from aim_exp.types import ModelRef, Population, Suite

STAGE_VERSIONS = {"saliency": 3, "vocabulary": 1, "weights": 1, "responses": 1, "scores": 3}
"""Counts up when a change in the code changes a stage's numbers."""

MERGED = "merged"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that the numbers of a run depend on, and nothing else.

    `given` are weights merged elsewhere, in the place of the experts. `calibration`,
    `evaluator` and `tasks` (per benchmark) are the ingredients that those parts state.
    """

    population: Population
    method: MergeMethod
    given: ModelRef | None
    omega: float | None
    aim: AimSettings
    calibration: Mapping[str, Any]
    suite: Suite
    tasks: Mapping[str, Mapping[str, Any]]
    evaluator: Mapping[str, Any]
    seed: int
    repeat: int
    dtype: str
    vocabulary: str | None = None
    """The rule for vocabularies, where those of the models to merge differ."""
    code: Mapping[str, str] = field(default_factory=dict)
    """By group, the digest of the code of a part that is not this package's."""
    own_companions: frozenset[str] = frozenset()
    """The experts whose settings or tokenizer are not base's: they are scored with their own."""

    @property
    def relaxes(self) -> bool:
        """Whether AIM does anything: omega 1 leaves the merge as it is."""
        return self.method.merges and self.omega is not None and self.omega < 1

    @property
    def stochastic(self) -> bool:
        """Whether the merged model depends on the seed: by its masks, or AIM's shuffled control."""
        return self.method.stochastic or (self.relaxes and self.aim.stochastic)

    def home(self, model: ModelRef) -> ModelRef:
        """Whose architecture and tokenizer a member is scored with: base's, or its own."""
        # A reference may be of any architecture.
        own = model in self.population.references or model.name in self.own_companions
        return model if own else self.population.base

    @property
    def templates(self) -> dict[str, ModelRef | None]:
        """By model, the one whose chat template it is asked with; empty where none is used."""
        if not self.suite.chat_template:
            return {}
        population = self.population
        homes = {model.name: self.home(model).name for model in population.models}
        if self.method.merges:
            homes[MERGED] = population.base.name
        chosen = {name: population.chat_template.get(name, home) for name, home in homes.items()}
        return {
            name: None if source is None else population.model(source)
            for name, source in chosen.items()
        }


@dataclass(frozen=True)
class ModelPlan:
    """A model to score: what its weights are, its responses and, per benchmark, its scores.

    Weights are made where they are needed and not kept; the store remembers under their key
    what AIM changed.
    """

    name: str
    weights: StageSpec
    responses: StageSpec
    scores: Mapping[str, StageSpec]


@dataclass(frozen=True)
class Plan:
    """The stages of a run. `members` are base, experts and references, in this order."""

    population: StageSpec | None
    saliency: StageSpec | None
    members: tuple[ModelPlan, ...]
    merged: ModelPlan | None
    vocabulary: StageSpec | None = None
    """The merge's tokenizer and configuration, where they are not base's."""

    def member(self, name: str) -> ModelPlan:
        """The plan of base, an expert or a reference."""
        return next(model for model in self.members if model.name == name)


def make_plan(recipe: Recipe, population_stage: StageSpec | None) -> Plan:
    """The stages of `recipe`; `population_stage` makes the models where they are not given."""
    saliency = _saliency(recipe) if recipe.relaxes else None
    return Plan(
        population=population_stage,
        saliency=saliency,
        members=tuple(_member(recipe, model) for model in recipe.population.models),
        merged=_merged(recipe, saliency) if recipe.method.merges else None,
        vocabulary=_vocabulary(recipe) if recipe.vocabulary and recipe.method.merges else None,
    )


def _saliency(recipe: Recipe) -> StageSpec:
    return _stage(
        "saliency",
        model=recipe.population.base.identity,
        calibration=recipe.calibration,
        statistic=recipe.aim.statistic,
        dtype=recipe.dtype,
        **_code(recipe, "calibration"),
    )


def _member(recipe: Recipe, model: ModelRef) -> ModelPlan:
    return _model(recipe, model.name, {"model": model.identity}, recipe.home(model))


def _merged(recipe: Recipe, saliency: StageSpec | None) -> ModelPlan:
    base, aim = recipe.population.base, recipe.aim
    weights: dict[str, Any] = {}
    if recipe.given:
        weights["model"] = recipe.given.identity
    else:
        experts = recipe.population.merged_experts
        names = [expert.name for expert in experts]
        weights["base"] = base.identity
        weights["experts"] = [expert.identity for expert in experts]
        weights |= {"method": recipe.method.spec(names), **_code(recipe, "method")}
        if recipe.method.stochastic:
            weights |= {"names": names, "seed": recipe.seed}
    if recipe.vocabulary:
        weights |= {"base": base.identity, "vocabulary": recipe.vocabulary}
    if saliency:
        weights["base"] = base.identity
        weights["aim"] = {
            "saliency": saliency.key,
            "omega": recipe.omega,
            "scaling": aim.scaling,
            "exclude": sorted(aim.exclude),
            "tied_head": aim.tied_head,
        }
        if aim.stochastic:
            weights["aim"]["seed"] = recipe.seed
    return _model(recipe, MERGED, weights, base)


def _vocabulary(recipe: Recipe) -> StageSpec:
    models = [recipe.given] if recipe.given else recipe.population.merged_experts
    return _stage(
        "vocabulary",
        rule=recipe.vocabulary,
        base=recipe.population.base.identity,
        experts=[model.identity for model in models],
    )


def _model(recipe: Recipe, name: str, weights: Mapping[str, Any], tokenizer: ModelRef) -> ModelPlan:
    made = _stage("weights", **weights, dtype=recipe.dtype)
    responses = _stage(
        "responses",
        weights=made.spec,
        # What they are asked with, whichever model lends it.
        companions=tokenizer.companions or tokenizer.identity,
        evaluator=recipe.evaluator,
        **_code(recipe, "evaluator"),
        **({"repeat": recipe.repeat} if recipe.repeat else {}),
    )
    source = recipe.templates.get(name, tokenizer)
    template = {} if source == tokenizer else {"template": source and source.identity}
    scores = {
        benchmark.name: _stage(
            "scores", responses=responses.key, task=recipe.tasks[benchmark.name], **template
        )
        for benchmark in recipe.suite.benchmarks
    }
    return ModelPlan(name, made, responses, scores)


def _code(recipe: Recipe, group: str) -> dict[str, str]:
    return {"code": recipe.code[group]} if group in recipe.code else {}


def _stage(stage: str, **spec: Any) -> StageSpec:
    return StageSpec(stage, STAGE_VERSIONS[stage], spec)
