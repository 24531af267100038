"""From a run and its results to its record, and to the files that the record names."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aim_exp.run.keys import ModelPlan
from aim_exp.run.recipe import MERGED, Recipe
from aim_exp.run.run import Run
from aim_exp.store.files import RUN_KEYS, fill_whole, named
from aim_exp.store.provenance import provenance, versions
from aim_exp.store.run_record import (
    BenchmarkRecord,
    Dose,
    ModelRecord,
    PopulationRecord,
    Role,
    RunRecord,
    ScoreRecord,
    StageRecord,
    Standing,
)
from aim_exp.store.stage_spec import file_name

if TYPE_CHECKING:  # a refused configuration is recorded without what a run imports
    from aim_exp.run.pipeline import Results
    from aim_exp.run.scoring import Scored

KEY_DIGITS = 24
"""Of a content key, in the names of files that are shared."""


def initial_record(
    config: Mapping[str, Any], choices: Mapping[str, str], overrides: Sequence[str], command: str
) -> RunRecord:
    """What a configuration says by itself, right or wrong, before anything is done."""
    population = config.get("population")
    population = population if isinstance(population, Mapping) else {}
    experts = population.get("experts") or {}
    return RunRecord(
        status="running",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        config=config,
        choices=choices,
        overrides=tuple(overrides),
        omega=config["omega"] if isinstance(config.get("omega"), int | float) else None,
        population=PopulationRecord(
            name=choices.get("population", ""),
            base=_text(population.get("base")),
            experts={str(name): str(path) for name, path in experts.items()}
            if isinstance(experts, Mapping)
            else {},
            merged=(),
        ),
        versions=versions(),
        provenance=provenance(),
    )


def planned_record(record: RunRecord, run: Run) -> RunRecord:
    """`record` with what the checks made of the configuration."""
    recipe = run.recipe
    population = recipe.population
    return replace(
        record,
        population=PopulationRecord(
            name=population.name,
            base=str(population.base.path),
            experts={model.name: str(model.path) for model in population.experts},
            merged=population.merged,
            references={model.name: str(model.path) for model in population.references},
            specialty=population.specialty,
        ),
        benchmarks={
            b.name: BenchmarkRecord(
                task=b.task,
                reference_point=b.reference_point,
                objective=b.objective,
                protocol=recipe.tasks[b.name],
            )
            for b in recipe.suite.benchmarks
        },
        models=tuple(_model(run, model) for model in run.plan.models) or _unidentified(run),
        draws=recipe.draws,
        omega=recipe.effective_omega,
        relaxation=recipe.aim.relaxation if recipe.relaxes else None,
        dtype=recipe.dtype,
        stages=tuple(_stages(run)),
        code=recipe.code,
    )


def completed_record(
    record: RunRecord, run: Run, results: Results, directory: Path, shared: Path
) -> RunRecord:
    """The record of a run that went through; its files go to `directory` and `shared`.

    `record` is the planned one.
    """
    recipe = run.recipe
    plans = {plan.name: plan for plan in run.plan.models}
    models = tuple(
        replace(model, scores=_scores(plans[model.name], scored, directory, shared))
        if (scored := results.scores.get(model.name))
        else model
        for model in record.models
    )
    saliency = run.plan.saliency and _kept(
        run.store.path(run.plan.saliency) / "saliency.safetensors",
        shared / "saliency" / f"{run.plan.saliency.key[:KEY_DIGITS]}.safetensors",
        directory,
    )
    report = results.relaxation
    dose = {kind: Dose(**values) for kind, values in report.summary().items()} if report else {}
    layers = sorted(report.layers.items()) if report else ()
    return replace(
        record,
        status="completed",
        device=results.device,
        models=models,
        benchmarks={
            name: replace(about, num_fewshot=_shots(results, name))
            for name, about in record.benchmarks.items()
        },
        omega=report.omega if report and recipe.relaxes else record.omega,
        relaxed=any(each.relaxed_parameters for each in dose.values()),
        dose=dose,
        dose_by_layer={number: Dose(**layer.summary()) for number, layer in layers},
        deltas=results.deltas and results.deltas.summary(),
        standing=_standing(recipe, results),
        calibration=results.calibration,
        saliency=saliency,
        warnings=(*results.warnings, *_toy_settings(run), *_unexpected(recipe, results)),
        timings=results.timings,
        stages=tuple(_stages(run, results)),
        provenance=provenance(),
    )


def _model(run: Run, plan: ModelPlan) -> ModelRecord:
    population = run.recipe.population
    experts = {model.name for model in population.experts}
    assert plan.undrawn
    keys = {
        "weights": plan.weights.key,
        "responses": plan.responses.key,
        "undrawn": plan.undrawn.weights.key,
    }
    if plan.name == MERGED:
        return ModelRecord(name=MERGED, role="merged", identity=plan.weights.key, keys=keys)
    role: Role = "expert" if plan.name in experts else "reference"
    return ModelRecord(
        name=plan.name,
        role="base" if plan.name == population.base.name else role,
        identity=population.model(plan.name).identity,
        keys=keys,
    )


def _unidentified(run: Run) -> tuple[ModelRecord, ...]:
    """The models of a run without keys: it neither scores nor measures."""
    population = run.recipe.population
    experts = tuple(ModelRecord(name=each.name, role="expert") for each in population.experts)
    merged = (ModelRecord(name=MERGED, role="merged"),) if run.recipe.method.merges else ()
    return (ModelRecord(name=population.base.name, role="base"), *experts, *merged)


def _scores(
    plan: ModelPlan, scored: Scored, directory: Path, shared: Path
) -> dict[str, ScoreRecord]:
    assert plan.undrawn
    scores = {}
    for name, result in scored.results.items():
        key = plan.scores[name].key
        own = directory / "items" / f"{file_name(name)}.jsonl.gz"
        target = own if plan.name == MERGED else shared / "items" / f"{key[:KEY_DIGITS]}.jsonl.gz"
        scores[name] = ScoreRecord(
            key=key,
            undrawn=plan.undrawn.scores[name].key,
            value=result.score.value,
            stderr=result.score.stderr,
            n=result.score.n,
            metric=result.metric,
            ends=result.ends,
            metrics=result.metrics,
            items=_kept(scored.items[name], target, directory),
        )
    return scores


def _kept(file: Path, target: Path, directory: Path) -> str:
    """Have `file`, of the store, at `target` too; the path there as seen from `directory`."""
    if not target.exists() or not filecmp.cmp(file, target):  # of an entry that was damaged
        with named(target.name, target.parent, RUN_KEYS):
            target.parent.mkdir(parents=True, exist_ok=True)
            fill_whole(target, lambda partial: _link_or_copy(file, partial))
    return Path(os.path.relpath(target, directory)).as_posix()


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)  # what is in the store is never changed
    except OSError:  # another file system, or one without links
        shutil.copy2(file, target)


def _shots(results: Results, benchmark: str) -> int | None:
    return next(iter(results.scores.values())).results[benchmark].num_fewshot


def _standing(recipe: Recipe, results: Results) -> Standing:
    if not results.scores:
        return Standing()
    from aim_exp.store.standing import standing  # and numpy with it

    population = recipe.population
    values = {
        name: {benchmark: result.score.value for benchmark, result in scored.results.items()}
        for name, scored in results.scores.items()
    }
    return standing(
        values.get(MERGED),
        {model.name: values[model.name] for model in (population.base, *population.experts)},
        population.merged,
        population.specialty,
        {b.name: b.reference_point for b in recipe.suite.objectives},
    )


def _stages(run: Run, results: Results | None = None) -> list[StageRecord]:
    """The graph, as it was walked here: what each stage took, whether here or in another run."""
    records = []
    for stage in run.plan.stages:
        entries = stage.entries if results else ()
        made = [each for entry in entries if (each := run.store.made(entry))]
        began, ended = results.spans.get(stage.name, (None, None)) if results else (None, None)
        records.append(
            StageRecord(
                name=stage.name,
                needs=tuple(needed.name for needed in stage.needs),
                keys=tuple(entry.name for entry in stage.entries),
                seconds=round(sum(each.seconds for each in made), 3) if made else None,
                machine=made[-1].machine if made else None,
                began=began,
                ended=ended,
                waited=results.waited.get(stage.name) if results else None,
                made_at=max((each.at for each in made if each.at), default=None),
            )
        )
    return records


def _toy_settings(run: Run) -> list[str]:
    """What is made for the embedded population only, used with another one."""
    specialty = run.recipe.population.specialty.values()
    if set().union(*specialty) & {b.name for b in run.recipe.suite.benchmarks}:
        return []
    warnings = []
    if run.choices["benchmarks"] == "tiny":
        warnings.append(
            "benchmarks=tiny: these are toy tasks made for the embedded population, not the "
            "benchmarks that they are named after; set benchmarks=standard, paper or lm_eval"
        )
    if run.choices["calibration"] == "tiny" and run.plan.saliency:
        warnings.append(
            "calibration=tiny: these texts are the embedded population's; set calibration=text "
            "or pile_val"
        )
    return warnings


def _unexpected(recipe: Recipe, results: Results) -> list[str]:
    expected = recipe.population.expected
    if expected is None or expected.suite != recipe.suite.name:
        return []
    from aim_exp.store.standing import unexpected

    scores = {
        model: {name: result.score for name, result in scored.results.items()}
        for model, scored in results.scores.items()
    }
    return unexpected(expected.scores, scores)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
