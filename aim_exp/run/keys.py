"""What each stage's result depends on, and so its key.

This is where it is decided: too few ingredients in a key give silently wrong numbers, too many
lose the sharing between jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aim_exp.run.recipe import MERGED, Recipe
from aim_exp.store.stage_spec import StageSpec
from aim_exp.types import ModelRef

STAGE_VERSIONS = {
    "saliency": 5,
    "vocabulary": 2,
    "deltas": 1,
    "groundwork": 1,
    "fisher": 1,
    "weights": 4,
    "responses": 2,
    "scores": 4,
}
"""Counts up when a change in the code changes a stage's numbers."""


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """A model to score: what its weights are, its responses and, per benchmark, its scores.

    Weights are made where they are needed and not kept; the store remembers under their key
    what AIM changed. `undrawn` is the same for all draws.
    """

    name: str
    weights: StageSpec
    responses: StageSpec
    scores: Mapping[str, StageSpec]
    undrawn: ModelPlan | None = None


def models_of(recipe: Recipe) -> list[ModelPlan]:
    """Base, experts and references, and the merged model last; none without identities."""
    if recipe.population.base.identity is None:
        return []
    members = [_member(recipe, model) for model in recipe.population.models]
    return members + ([_merged(recipe)] if recipe.method.merges else [])


def saliencies_of(recipe: Recipe) -> tuple[StageSpec, ...]:
    """Base's, then the merged experts' where theirs counts too; none where no text is read."""
    if not recipe.reads_texts:
        return ()
    experts = recipe.population.merged_experts if recipe.aim.saliency == "mean" else ()
    models = (recipe.population.base, *experts)
    return tuple(_measured("saliency", recipe, m, recipe.calibration) for m in models)


def statistics_of(recipe: Recipe) -> tuple[StageSpec, ...]:
    """The merged experts, each measured on its own texts, where the method reads that."""
    stage = {"moments": "saliency", "fisher": "fisher"}.get(recipe.method.reads or "")
    if stage is None or recipe.method.given:
        return ()
    experts, texts = recipe.population.merged_experts, recipe.expert_texts
    return tuple(_measured(stage, recipe, each, texts[each.name]) for each in experts)


def _measured(stage: str, recipe: Recipe, model: ModelRef, texts: Mapping[str, Any]) -> StageSpec:
    return _stage(
        stage,
        model=model.identity,
        calibration=texts,
        dtype=recipe.dtype,
        **_code(recipe, "calibration"),
    )


def _member(recipe: Recipe, model: ModelRef) -> ModelPlan:
    return _model(recipe, model.name, {"model": model.identity}, recipe.home(model))


def _merged(recipe: Recipe) -> ModelPlan:
    base, aim = recipe.population.base, recipe.aim
    saliencies = saliencies_of(recipe)
    weights: dict[str, Any] = {}
    if recipe.given:
        weights["model"] = recipe.given.identity
    else:
        experts = recipe.population.merged_experts
        names = [expert.name for expert in experts]
        weights["base"] = base.identity
        weights["experts"] = [expert.identity for expert in experts]
        weights |= {"method": recipe.method.spec(names), **_code(recipe, "method")}
        if groundwork := groundwork_of(recipe):
            weights["groundwork"] = groundwork.key
        if recipe.method.stochastic:
            weights |= {"names": names, "seed": recipe.seed}
    if recipe.take:
        order = {name: number for number, name in enumerate(recipe.population.merged)}
        taken = [[key, order.get(str(model), model)] for key, model in recipe.take.items()]
        weights |= {"base": base.identity, "take": taken}
    if recipe.vocabulary:
        weights |= {"base": base.identity, "vocabulary": recipe.vocabulary}
    if recipe.relaxes:
        weights["base"] = base.identity
        weights["aim"] = aim.spec()
        if saliencies:
            weights["aim"]["saliency"] = [stage.key for stage in saliencies]
        if aim.uses_omega:
            weights["aim"]["omega"] = recipe.omega
        if aim.stochastic:
            weights["aim"]["seed"] = recipe.seed
    return _model(recipe, MERGED, weights, base)


def deltas_of(recipe: Recipe) -> StageSpec:
    """How the models to merge lie to each other."""
    return _stage("deltas", **_to_merge(recipe), **_rule(recipe))


def groundwork_of(recipe: Recipe) -> StageSpec | None:
    """What the method works out of the whole models first; None where it works nothing out."""
    experts = recipe.population.merged_experts
    settings = recipe.method.groundwork([expert.name for expert in experts])
    if settings is None:
        return None
    rest: dict[str, Any] = {**_rule(recipe), **_code(recipe, "method")}
    if statistics := statistics_of(recipe):
        rest["statistics"] = [stage.key for stage in statistics]
    elif recipe.expert_texts:
        rest["texts"] = [recipe.expert_texts[expert.name] for expert in experts]
        rest |= {"dtype": recipe.dtype, **_code(recipe, "calibration")}
    return _stage("groundwork", **_to_merge(recipe), method=settings, **rest)


def _rule(recipe: Recipe) -> dict[str, str]:
    return {"vocabulary": recipe.vocabulary} if recipe.vocabulary else {}


def vocabulary_of(recipe: Recipe) -> StageSpec:
    """The merge's tokenizer and configuration, where they are not base's."""
    return _stage("vocabulary", rule=recipe.vocabulary, **_to_merge(recipe))


def _to_merge(recipe: Recipe) -> dict[str, Any]:
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
    return ModelPlan(name=name, weights=made, responses=responses, scores=scores)


def _code(recipe: Recipe, group: str) -> dict[str, str]:
    return {"code": recipe.code[group]} if group in recipe.code else {}


def _stage(stage: str, **spec: Any) -> StageSpec:
    return StageSpec(stage, STAGE_VERSIONS[stage], spec)
