"""From a run to the specs of its stages. Pure: nothing is read, trained or computed here.

This is where it is decided what a result depends on: too few ingredients in a key give
silently wrong numbers, too many lose the sharing between jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aim_exp.aim.settings import AimSettings
from aim_exp.merge.method import MergeMethod
from aim_exp.store.keys import StageSpec
from aim_exp.types import ModelRef, Population, Suite

STAGE_VERSIONS = {
    "saliency": 4,
    "vocabulary": 1,
    "deltas": 1,
    "weights": 2,
    "responses": 1,
    "scores": 1,
}
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
    expert_saliency: tuple[StageSpec, ...] = ()
    """Of the merged experts, in order, where theirs counts too."""
    deltas: StageSpec | None = None
    """How the models to merge lie to each other, where nothing else is asked of the merge."""
    vocabulary: StageSpec | None = None
    """The merge's tokenizer and configuration, where they are not base's."""

    @property
    def saliencies(self) -> tuple[StageSpec, ...]:
        """Base's, then the experts'; none where no text is read."""
        return (self.saliency, *self.expert_saliency) if self.saliency else ()

    def member(self, name: str) -> ModelPlan:
        """The plan of base, an expert or a reference."""
        return next(model for model in self.members if model.name == name)


def make_plan(recipe: Recipe, population_stage: StageSpec | None) -> Plan:
    """The stages of `recipe`; `population_stage` makes the models where they are not given."""
    saliency = None
    expert_saliency: tuple[StageSpec, ...] = ()
    if recipe.relaxes and recipe.aim.reads_texts:
        saliency = _saliency(recipe, recipe.population.base)
        if recipe.aim.saliency == "mean":
            experts = recipe.population.merged_experts
            expert_saliency = tuple(_saliency(recipe, expert) for expert in experts)
    return Plan(
        population=population_stage,
        saliency=saliency,
        expert_saliency=expert_saliency,
        members=tuple(_member(recipe, model) for model in recipe.population.models),
        merged=_merged(recipe, saliency, expert_saliency) if recipe.method.merges else None,
        deltas=_deltas(recipe) if recipe.method.merges and not recipe.suite.benchmarks else None,
        vocabulary=_vocabulary(recipe) if recipe.vocabulary and recipe.method.merges else None,
    )


def _saliency(recipe: Recipe, model: ModelRef) -> StageSpec:
    return _stage(
        "saliency",
        model=model.identity,
        calibration=recipe.calibration,
        dtype=recipe.dtype,
        **_code(recipe, "calibration"),
    )


def _member(recipe: Recipe, model: ModelRef) -> ModelPlan:
    return _model(recipe, model.name, {"model": model.identity}, recipe.home(model))


def _merged(
    recipe: Recipe, saliency: StageSpec | None, expert_saliency: Sequence[StageSpec]
) -> ModelPlan:
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
    if recipe.relaxes:
        weights["base"] = base.identity
        weights["aim"] = aim.spec()
        if saliency:
            weights["aim"]["saliency"] = [stage.key for stage in (saliency, *expert_saliency)]
        if aim.uses_omega:
            weights["aim"]["omega"] = recipe.omega
        if aim.stochastic:
            weights["aim"]["seed"] = recipe.seed
    return _model(recipe, MERGED, weights, base)


def _deltas(recipe: Recipe) -> StageSpec:
    rule = {"vocabulary": recipe.vocabulary} if recipe.vocabulary else {}
    return _stage("deltas", **_models(recipe), **rule)


def _vocabulary(recipe: Recipe) -> StageSpec:
    return _stage("vocabulary", rule=recipe.vocabulary, **_models(recipe))


def _models(recipe: Recipe) -> dict[str, Any]:
    models = [recipe.given] if recipe.given else recipe.population.merged_experts
    return {
        "base": recipe.population.base.identity,
        "experts": [model.identity for model in models],
    }


def _model(recipe: Recipe, name: str, weights: Mapping[str, Any], tokenizer: ModelRef) -> ModelPlan:
    made = _stage("weights", **weights, dtype=recipe.dtype)
    responses = _stage(
        "responses",
        weights=made.spec,
        tokenizer=tokenizer.identity,
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
