"""From a recipe to the graph of its stages. Pure: nothing is read, trained or computed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aim_exp.run import room
from aim_exp.run.keys import (
    ModelPlan,
    deltas_of,
    groundwork_of,
    models_of,
    saliencies_of,
    statistics_of,
    vocabulary_of,
)
from aim_exp.run.recipe import Recipe
from aim_exp.store.stage_spec import StageSpec
from aim_exp.types import ModelRef

if TYPE_CHECKING:
    from pathlib import Path

    from aim_exp.run.pipeline import Pipeline
    from aim_exp.run.room import Room
    from aim_exp.run.run import Run


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
    undrawn = {model.name: model for model in models_of(recipe.undrawn)}
    models = [replace(model, undrawn=undrawn[model.name]) for model in models_of(recipe)]
    merged = models.pop() if models and recipe.method.merges else None
    about = Plan(
        stages=(),
        saliencies=saliencies_of(recipe),
        members=tuple(models),
        merged=merged,
        deltas=deltas_of(recipe) if merged and not recipe.suite.benchmarks else None,
        vocabulary=vocabulary_of(recipe) if recipe.vocabulary and merged else None,
        groundwork=groundwork_of(recipe) if merged else None,
        statistics=statistics_of(recipe),
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
