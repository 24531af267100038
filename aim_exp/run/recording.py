"""From a run and what it found to its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aim_exp.run.plan import Recipe
from aim_exp.run.run import Run
from aim_exp.run.standing import compare, unexpected
from aim_exp.store.provenance import provenance, versions
from aim_exp.store.records import CODE_DIGITS, RunRecord
from aim_exp.types import BenchmarkResult

if TYPE_CHECKING:  # a refused configuration is recorded without what a run imports
    from aim_exp.run.pipeline import Results


def completed_record(run: Run, found: Results, command: str) -> RunRecord:
    """The record of a run that went through."""
    record = _configured(run, command)
    record.device = found.device
    record.calibration = {**record.calibration, **found.calibration}
    record.relaxation = found.relaxation
    record.items = found.items
    if run.plan.saliency:
        record.saliency = str(run.store.path(run.plan.saliency))
    record.warnings = [*found.warnings, *_toy_settings(run)]
    record.timings = found.timings
    record.products = _products(run)
    if found.members:
        _add_scores(record, run.recipe, found)
        record.warnings = [*record.warnings, *_unexpected(run.recipe, found)]
    return record


def failed_record(
    run: Run | None,
    settings: Mapping[str, Any],
    choices: Mapping[str, str],
    error: str,
    command: str,
) -> RunRecord:
    """The record of a run that failed; `run` is None where the configuration was refused."""
    record = _configured(run, command) if run else _refused(settings, choices, command)
    record.status = "failed"
    record.error = error
    return record


def _configured(run: Run, command: str) -> RunRecord:
    recipe = run.recipe
    population = recipe.population
    record = _refused(run.settings, run.choices, command)
    record.dtype = recipe.dtype
    record.stochastic = recipe.stochastic
    record.population = {
        "name": population.name,
        "base": str(population.base.path),
        "experts": {model.name: str(model.path) for model in population.experts},
        "merged": list(population.merged),
        "references": {model.name: str(model.path) for model in population.references},
        "models": {model.name: model.identity for model in population.models},
        "chat_template": dict(population.chat_template) or None,
        "seed": run.settings["population"].get("seed"),
    }
    record.code = dict(recipe.code)
    record.benchmarks = {
        b.name: {
            "task": b.task,
            "reference_point": b.reference_point,
            "protocol": dict(recipe.tasks[b.name]),
        }
        for b in recipe.suite.benchmarks
    }
    record.method_settings = {**record.method_settings, **_code(recipe, "method")}
    record.calibration = {**record.calibration, **_code(recipe, "calibration")}
    plan = run.plan
    models = (*plan.members, *([plan.merged] if plan.merged else []))
    record.keys = {
        "population": plan.population and plan.population.key,
        "saliency": plan.saliency and plan.saliency.key,
        "weights": {model.name: model.weights.key for model in models},
        "responses": {model.name: model.responses.key for model in models},
    }
    return record


def _code(recipe: Recipe, group: str) -> dict[str, str]:
    """What tells versions of a part that is not this package's: a setting among the others."""
    return {"code": recipe.code[group][:CODE_DIGITS]} if group in recipe.code else {}


def _refused(settings: Mapping[str, Any], choices: Mapping[str, str], command: str) -> RunRecord:
    """What a configuration says by itself, right or wrong."""
    population = settings["population"]
    return RunRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        method=choices["method"],
        method_settings=_without_target(settings["method"]),
        omega=_finite(settings["omega"]),
        aim=_without_target(settings["aim"]),
        calibration={"name": choices["calibration"], **_without_target(settings["calibration"])},
        population={
            "name": choices["population"],
            "base": population.get("base"),
            "experts": population.get("experts"),
            "merged": population.get("merge"),
        },
        seed=settings["seed"],
        dtype=settings["dtype"] or "",
        device=settings["device"],
        batch_size=settings["evaluator"].get("batch_size"),
        suite=choices["benchmarks"],
        versions=versions(),
        provenance=provenance(),
    )


def _add_scores(record: RunRecord, recipe: Recipe, found: Results) -> None:
    population = recipe.population
    members = [population.base.name, *(expert.name for expert in population.experts)]
    record.population_scores = {name: _values(found.members[name]) for name in members}
    record.population_stderr = {name: _errors(found.members[name]) for name in members}
    record.reference_scores = {
        model.name: _values(found.members[model.name]) for model in population.references
    }
    record.reference_stderr = {
        model.name: _errors(found.members[model.name]) for model in population.references
    }
    results = found.merged or found.members[population.base.name]
    record.benchmarks = {
        b.name: {
            **record.benchmarks[b.name],
            "metric": results[b.name].metric,
            "num_fewshot": results[b.name].num_fewshot,
        }
        for b in recipe.suite.benchmarks
    }
    if found.merged:
        record.scores = _values(found.merged)
        record.stderr = _errors(found.merged)
        record.n_items = {name: result.score.n for name, result in found.merged.items()}
        record.metrics = {name: dict(result.metrics) for name, result in found.merged.items()}
    comparison = compare(
        record.scores,
        record.population_scores,
        population.merged,
        population.specialty,
        {b.name: b.reference_point for b in recipe.suite.objectives},
    )
    for name, value in asdict(comparison).items():
        setattr(record, name, value)


def _products(run: Run) -> dict[str, dict[str, Any] | None]:
    """Training, calibration, merge and scores: what they took, whether here or in another run."""
    plan, store = run.plan, run.store
    models = (*plan.members, *([plan.merged] if plan.merged else []))
    stages = [plan.population, plan.saliency, plan.merged and plan.merged.weights]
    stages += [stage for model in models for stage in model.scores.values()]
    return {
        f"{stage.stage}/{stage.key}": (made := store.made(stage)) and asdict(made)
        for stage in stages
        if stage
    }


def _toy_settings(run: Run) -> list[str]:
    """What is made for the embedded population only, used with another one."""
    specialty = run.recipe.population.specialty.values()
    if set().union(*specialty) & {b.name for b in run.recipe.suite.benchmarks}:
        return []
    found = []
    if run.choices["benchmarks"] == "tiny":
        found.append(
            "benchmarks=tiny: these are toy tasks made for the embedded population, not the "
            "benchmarks that they are named after; set benchmarks=standard, paper or lm_eval"
        )
    if run.choices["calibration"] == "tiny" and run.plan.saliency:
        found.append(
            "calibration=tiny: these texts are the embedded population's; set calibration=text "
            "or pile_val"
        )
    return found


def _unexpected(recipe: Recipe, found: Results) -> list[str]:
    expected = recipe.population.expected
    if expected is None or expected.suite != recipe.suite.name:
        return []
    scores = {
        model: {name: result.score for name, result in results.items()}
        for model, results in found.members.items()
    }
    return unexpected(expected.scores, scores)


def _values(results: Mapping[str, BenchmarkResult]) -> dict[str, float]:
    return {name: result.score.value for name, result in results.items()}


def _errors(results: Mapping[str, BenchmarkResult]) -> dict[str, float | None]:
    return {name: result.score.stderr for name, result in results.items()}


def _without_target(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "_target_"}


def _finite(value: float | None) -> float | None:
    """JSON has no NaN; the error says what was given."""
    return value if value is not None and value == value else None
