"""What keeps a run from working, told before any work is done: a list for each thing at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aim_exp.checkpoint.adapters import open_model
from aim_exp.checkpoint.fit import fit_problems, loading_problem
from aim_exp.checkpoint.templates import template_problems
from aim_exp.checkpoint.varying import depths, idle_problems
from aim_exp.errors import EvaluationError
from aim_exp.run.recipe import MERGED, Recipe
from aim_exp.run.run import ADAPTER, GIVEN_KEY, LAYOUTS, Run
from aim_exp.types import ModelRef, Population


def configuration_problems(run: Run) -> list[str]:
    """From the configuration and this machine: the device, and what the tasks need."""
    return [*_device_problems(run.device), *_suite_problems(run)]


def _suite_problems(run: Run) -> list[str]:
    """Of benchmarks that are to be asked; of others, whether the metric is among their scores.

    lm-eval takes seconds to import, and what was scored has been through its checks.
    """
    from aim_exp.evaluate.results import read_result

    suite, plan = run.recipe.suite, run.plan
    missing = frozenset[str]().union(*run.unscored.values())
    problems = []
    for benchmark in suite.benchmarks:
        if benchmark.name not in missing:
            try:
                read_result(run.store.path(plan.models[0].scores[benchmark.name]), benchmark)
            except EvaluationError as error:
                problems.append(str(error))
    if missing:
        from aim_exp.evaluate.check import check_suite

        rest = replace(suite, benchmarks=tuple(b for b in suite.benchmarks if b.name in missing))
        problems += check_suite(rest, () if run.settings["plan"] else missing)
    return problems


def header_problems(run: Run) -> list[str]:
    """From headers and companions, beside `misfits`: templates, loading, filters, prompts."""
    problems = template_problems(run.template_sources, run.template)
    recipe, base = run.recipe, run.recipe.population.base
    loaded = {*run.unscored}
    if MERGED in loaded or (run.plan.saliency and not run.store.has(run.plan.saliency)):
        loaded.add(base.name)
    models = [model for model in recipe.population.models if model.name in loaded]
    there = [open_model(model) for model in models if model.path.is_dir()]
    layouts = run.store.root / LAYOUTS
    problems += filter(None, (loading_problem(each, layouts) for each in there))
    if not base.path.is_dir():
        return problems
    if recipe.method.merges:
        problems += _filter_problems(recipe)
        problems += _adapter_problems(recipe) if run.save_model == ADAPTER else []
    block_size = run.calibration.block_size
    longest = open_model(base).text_config.get("max_position_embeddings")
    reads = run.plan.saliency or run.recipe.expert_texts
    if reads and isinstance(longest, int) and block_size > longest:
        problems.append(
            f"calibration.block_size={block_size}: base takes at most {longest} tokens; "
            f"set calibration.block_size={longest}"
        )
    return problems


def _filter_problems(recipe: Recipe) -> list[str]:
    """Of settings that vary: what is like no tensor, and weights that add up to nothing."""
    population = recipe.population
    experts = () if recipe.given else population.merged_experts
    there = [open_model(m) for m in (population.base, *experts) if m.path.is_dir()]
    heads = [model.head for model in there if model.head]
    depth_of = depths(dict.fromkeys([*there[0].tensors, *heads]))
    problems = recipe.method.tensor_problems(population.merged, depth_of)
    settings = {"take": recipe.take}
    settings |= {"aim.omega_by": recipe.aim.omega_by} if recipe.relaxes else {}
    for key, setting in settings.items():
        problems += idle_problems(key, setting, [*depth_of])
    return problems


def _adapter_problems(recipe: Recipe) -> list[str]:
    """What keeps the merge from being written as an adapter."""
    from aim_exp.checkpoint.adapter_writer import adapter_problem

    if not recipe.method.keeps_rank:
        kind = type(recipe.method).__name__
        return [
            f"save_model=adapter: {kind} does not keep the rank of adapters; set save_model=true, "
            "or method=task_arithmetic, linear, knots_ties or core_ties"
        ]
    if recipe.vocabulary:
        return [f"save_model=adapter: vocabulary={recipe.vocabulary} gives other rows than base's"]
    base = open_model(recipe.population.base)
    there = [open_model(m) for m in recipe.population.merged_experts if m.path.is_dir()]
    return [*filter(None, (adapter_problem(expert, base) for expert in there))]


def misfits(
    population: Population, given: ModelRef | None, vocabulary: str, layouts: Path
) -> list[str]:
    """What keeps models from being merged with base, of those that are on disk."""
    if not population.base.path.is_dir():
        return []
    models = [model for model in to_merge(population, given) if model.path.is_dir()]
    others = [open_model(model, GIVEN_KEY if model is given else None) for model in models]
    return fit_problems(open_model(population.base), others, vocabulary, layouts)


def unchecked(run: Run) -> list[str]:
    """The names of the models whose headers are not at hand: still to be trained or fetched."""
    population = run.recipe.population
    models = (population.base, *to_merge(population, run.recipe.given))
    return [model.name for model in models if not model.path.is_dir()]


def to_merge(population: Population, given: ModelRef | None) -> Sequence[ModelRef]:
    """All experts, and the weights merged elsewhere."""
    return [*population.experts, *([given] if given else [])]


def _device_problems(device: str) -> list[str]:
    """Whether the device is there; the processor always is."""
    if device in ("auto", "cpu"):
        return []
    import torch

    kind, _, index = device.partition(":")
    if kind == "mps":
        there = torch.backends.mps.is_available()
    else:
        there = int(index or 0) < torch.cuda.device_count()
    return [] if there else [f"device={device}: torch {torch.__version__} sees none; use auto"]
