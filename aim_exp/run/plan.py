"""From a run to the graph of its stages. Pure: nothing is read, trained or computed here.

This is where it is decided what a result depends on: too few ingredients in a key give
silently wrong numbers, too many lose the sharing between jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aim_exp.aim.settings import AimSettings
from aim_exp.merge.method import MergeMethod
from aim_exp.run import room
from aim_exp.store.keys import StageSpec
from aim_exp.types import ModelRef, Population, Suite

if TYPE_CHECKING:
    from pathlib import Path

    from aim_exp.run.pipeline import Pipeline
    from aim_exp.run.room import Room
    from aim_exp.run.run import Run

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

MERGED = "merged"
DRAWS = (
    ("population.seed", "benchmarks.items_seed"),
    ("calibration.seed", "seed"),
    ("repeat",),
)
"""The keys whose values may be draws of the same, not choices: from the outermost level in."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that the numbers of a run depend on, and nothing else.

    `given` are weights merged elsewhere, in the place of the experts. `calibration`,
    `evaluator` and `tasks` (per benchmark) are the ingredients that those parts state.
    """

    population: Population
    method: MergeMethod
    given: ModelRef | None
    take: Mapping[str, str | None] = field(default_factory=dict)
    """Tensors that are not merged, by filter, and whose they are."""
    omega: float | None
    aim: AimSettings
    calibration: Mapping[str, Any]
    expert_texts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By expert, the ingredients of its own calibration, or of a file in its place, where the
    method reads it."""
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
    def effective_omega(self) -> float | None:
        """Omega; None where it plays no part."""
        return self.omega if not self.relaxes or self.aim.uses_omega else None

    @property
    def relaxes(self) -> bool:
        """Whether AIM does anything: omega 1 leaves the merge as it is."""
        return self.method.merges and self.omega is not None and self.omega < 1

    @property
    def reads_texts(self) -> bool:
        """Whether it relaxes by activations."""
        return self.relaxes and self.aim.reads_texts

    @property
    def stochastic(self) -> bool:
        """Whether the merged model depends on the seed: by its masks, or AIM's shuffled control."""
        return self.method.stochastic or (self.relaxes and self.aim.stochastic)

    @property
    def draws(self) -> dict[str, int]:
        """The values of the keys in `DRAWS` that the merged model and its scores depend on."""
        values = {
            "population.seed": self.population.seed,
            "benchmarks.items_seed": self.suite.items_seed or None,  # of other sets than the first
            "calibration.seed": next((t["seed"] for t in self._all_texts if "seed" in t), None),
            "seed": self.seed if self.stochastic else None,
            "repeat": self.repeat if self.suite.benchmarks else None,
        }
        return {key: values[key] for level in DRAWS for key in level if values[key] is not None}

    @property
    def _all_texts(self) -> list[Mapping[str, Any]]:
        """The ingredients of all calibrations that something reads."""
        return [*([self.calibration] if self.reads_texts else []), *self.expert_texts.values()]

    @property
    def undrawn(self) -> Recipe:
        """The same for all draws: what of two recipes is equal where they only draw anew."""

        def without(spec: Mapping[str, Any], seed: str) -> Mapping[str, Any]:
            return {key: value for key, value in spec.items() if key != seed}

        tasks = {name: without(spec, "items_seed") for name, spec in self.tasks.items()}
        texts = {name: without(spec, "seed") for name, spec in self.expert_texts.items()}
        return replace(
            self,
            population=self.population.undrawn,
            calibration=without(self.calibration, "seed"),
            expert_texts=texts,
            tasks=tasks,
            seed=0,
            repeat=0,
        )

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


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A node of the graph: work that is done as a whole, and what must be done before it.

    Whoever walks the graph (the loop, the record, a plan's printer, launches) knows no stage by
    its name: another kind of work is another node.
    """

    name: str
    """Unique in a plan, for records: `score code`."""
    what: str
    """For people: `scores of code, 6 benchmarks`."""
    heading: str
    """What a sweep counts it under."""
    key: str
    """Equal for the same work of other jobs."""
    entries: tuple[StageSpec, ...]
    """Of the store, all there when the work is done; none where it leaves nothing."""
    carry_out: Callable[[Pipeline], None]
    """Does it, or takes what is there already, into the pipeline's results."""
    needs: tuple[Stage, ...] = ()
    room: Callable[[Run, Path], Iterable[Room]] = lambda run, directory: ()
    """What is still to do of it takes on the disk and in memory; `directory` is the run's own."""
    shared: bool = True
    """Whether other jobs may need it too."""


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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of a run, each behind those it needs, and what they are about.

    `members` are base, experts and references, in this order.
    """

    stages: tuple[Stage, ...]
    saliencies: tuple[StageSpec, ...]
    """Base's, then the merged experts' where theirs counts too; none where no text is read."""
    members: tuple[ModelPlan, ...]
    merged: ModelPlan | None
    deltas: StageSpec | None = None
    """How the models to merge lie to each other, where nothing else is asked of the merge."""
    vocabulary: StageSpec | None = None
    """The merge's tokenizer and configuration, where they are not base's."""
    groundwork: StageSpec | None = None
    """What the method works out of the whole models first."""
    statistics: tuple[StageSpec, ...] = ()
    """What its groundwork rests on: the merged experts, each measured on its own texts."""

    @property
    def saliency(self) -> StageSpec | None:
        """Base's."""
        return self.saliencies[0] if self.saliencies else None

    @property
    def models(self) -> tuple[ModelPlan, ...]:
        """The members, and the merged model last."""
        return (*self.members, *([self.merged] if self.merged else []))

    @property
    def names(self) -> set[str]:
        """Of all entries that the run rests on: `STAGE/KEY`."""
        grown = [spec for model in self.models for spec in (model.weights, model.responses)]
        entries = [entry for stage in self.stages for entry in stage.entries]
        return {spec.name for spec in (*grown, *entries)}

    def member(self, name: str) -> ModelPlan:
        """The plan of base, an expert or a reference."""
        return next(model for model in self.members if model.name == name)


def make_plan(recipe: Recipe, population_stage: StageSpec | None) -> Plan:
    """The stages of `recipe`; `population_stage` makes the models where they are not given.

    A run without them, which neither scores nor measures, has models without identity.
    """
    undrawn = {model.name: model for model in _models(recipe.undrawn)}
    models = [replace(model, undrawn=undrawn[model.name]) for model in _models(recipe)]
    merged = models.pop() if models and recipe.method.merges else None
    about = Plan(
        stages=(),
        saliencies=_saliencies(recipe),
        members=tuple(models),
        merged=merged,
        deltas=_deltas(recipe) if merged and not recipe.suite.benchmarks else None,
        vocabulary=_vocabulary(recipe) if recipe.vocabulary and merged else None,
        groundwork=_groundwork(recipe) if merged else None,
        statistics=_statistics(recipe),
    )
    return replace(about, stages=_graph(recipe, population_stage, about))


def _graph(recipe: Recipe, population_stage: StageSpec | None, plan: Plan) -> tuple[Stage, ...]:
    population = Stage(
        name="population",
        what="the population's training",
        heading="population trained",
        key=population_stage.key if population_stage else "",
        entries=(population_stage,) if population_stage else (),
        carry_out=lambda pipeline: pipeline.ensure_population(),
        room=lambda run, _: room.of_training(run),
    )
    stages, own, experts = [population], [], recipe.population.merged_experts
    if recipe.suite.benchmarks:
        # One model is in memory at a time. A reference is another one than all that follow; so is
        # the one measured where a process scores: what is measured comes before base is scored.
        references = {model.name for model in recipe.population.references}
        scoring = {
            member.name: _scoring(member, recipe.population.model(member.name), population)
            for member in plan.members
        }
        stages += [stage for name, stage in scoring.items() if name in references]
        own = [stage for name, stage in scoring.items() if name not in references]
    needs = [population]
    if plan.saliencies:
        several = len(plan.saliencies) > 1
        calibration = Stage(
            name="calibrate",
            what="activations of base and experts" if several else "base's activations",
            heading="activations measured",
            key="+".join(saliency.key for saliency in plan.saliencies),
            entries=plan.saliencies,
            carry_out=lambda pipeline: pipeline.calibrate(),
            needs=(population,),
            room=lambda run, _: room.of_measuring(
                run, plan.saliencies, (recipe.population.base, *experts)
            ),
        )
        stages.append(calibration)
        needs.append(calibration)
    if groundwork := plan.groundwork:
        measured: list[Stage] = []
        if plan.statistics:
            measured.append(
                Stage(
                    name="measure",
                    what="experts on their own texts",
                    heading="experts measured",
                    key="+".join(stage.key for stage in plan.statistics),
                    entries=plan.statistics,
                    carry_out=lambda pipeline: pipeline.measure_experts(),
                    needs=(population,),
                    room=lambda run, _: room.of_measuring(
                        run, plan.statistics, experts, gradients=recipe.method.reads == "fisher"
                    ),
                )
            )
            stages += measured
        laid = Stage(
            name="groundwork",
            what="what the method works out first",
            heading="methods' groundwork",
            key=groundwork.key,
            entries=(groundwork,),
            carry_out=lambda pipeline: pipeline.lay_groundwork(groundwork),
            needs=(population, *measured),
            room=lambda run, _: room.of_groundwork(run, groundwork),
        )
        stages.append(laid)
        needs.append(laid)
    stages += own
    if deltas := plan.deltas:
        stages.append(
            Stage(
                name="deltas",
                what="how the deltas lie to each other",
                heading="deltas compared",
                key=deltas.key,
                entries=(deltas,),
                carry_out=lambda pipeline: pipeline.compare_deltas(deltas),
                needs=(population,),
            )
        )
    if recipe.method.merges:
        merged, scored = plan.merged, bool(recipe.suite.benchmarks)
        vocabulary = [plan.vocabulary] if plan.vocabulary else []
        made = (*merged.scores.values(), merged.weights) if merged else ()
        stages.append(
            Stage(
                name="merge",
                what=_scores_of(merged) if merged and scored else "the merge",
                heading="merged and scored" if scored else "merged, not scored",
                key=merged.responses.key if merged else "",
                entries=(*made, *vocabulary),
                carry_out=lambda pipeline: pipeline.merge(),
                needs=tuple(needs),
                room=lambda run, directory: room.of_merge(run, merged, directory),
                shared=False,
            )
        )
    return tuple(stages)


def _scoring(member: ModelPlan, model: ModelRef, population: Stage) -> Stage:
    return Stage(
        name=f"score {member.name}",
        what=_scores_of(member),
        heading="base, experts, references scored",
        key=member.responses.key,
        entries=tuple(member.scores.values()),
        carry_out=lambda pipeline: pipeline.score_member(member),
        needs=(population,),
        room=lambda run, _: room.of_scoring(run, member, model),
    )


def _scores_of(model: ModelPlan) -> str:
    count = len(model.scores)
    return f"scores of {model.name}, {count} benchmark{'s' * (count > 1)}"


def _models(recipe: Recipe) -> list[ModelPlan]:
    if recipe.population.base.identity is None:
        return []
    members = [_member(recipe, model) for model in recipe.population.models]
    return members + ([_merged(recipe)] if recipe.method.merges else [])


def _saliencies(recipe: Recipe) -> tuple[StageSpec, ...]:
    if not recipe.reads_texts:
        return ()
    experts = recipe.population.merged_experts if recipe.aim.saliency == "mean" else ()
    models = (recipe.population.base, *experts)
    return tuple(_measured("saliency", recipe, m, recipe.calibration) for m in models)


def _statistics(recipe: Recipe) -> tuple[StageSpec, ...]:
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
    saliencies = _saliencies(recipe)
    weights: dict[str, Any] = {}
    if recipe.given:
        weights["model"] = recipe.given.identity
    else:
        experts = recipe.population.merged_experts
        names = [expert.name for expert in experts]
        weights["base"] = base.identity
        weights["experts"] = [expert.identity for expert in experts]
        weights |= {"method": recipe.method.spec(names), **_code(recipe, "method")}
        if groundwork := _groundwork(recipe):
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


def _deltas(recipe: Recipe) -> StageSpec:
    return _stage("deltas", **_to_merge(recipe), **_rule(recipe))


def _groundwork(recipe: Recipe) -> StageSpec | None:
    experts = recipe.population.merged_experts
    settings = recipe.method.groundwork([expert.name for expert in experts])
    if settings is None:
        return None
    rest: dict[str, Any] = {**_rule(recipe), **_code(recipe, "method")}
    if statistics := _statistics(recipe):
        rest["statistics"] = [stage.key for stage in statistics]
    elif recipe.expert_texts:
        rest["texts"] = [recipe.expert_texts[expert.name] for expert in experts]
        rest |= {"dtype": recipe.dtype, **_code(recipe, "calibration")}
    return _stage("groundwork", **_to_merge(recipe), method=settings, **rest)


def _rule(recipe: Recipe) -> dict[str, str]:
    return {"vocabulary": recipe.vocabulary} if recipe.vocabulary else {}


def _vocabulary(recipe: Recipe) -> StageSpec:
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
