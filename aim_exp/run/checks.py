"""What keeps a run from working, told before any work is done: a list for each thing at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aim_exp.checkpoint.adapters import open_model
from aim_exp.checkpoint.fit import fit_problems, loading_problem
from aim_exp.checkpoint.templates import template_problems
from aim_exp.run.run import GIVEN_KEY, LAYOUTS, Run
from aim_exp.types import ModelRef, Population


def configuration_problems(run: Run) -> list[str]:
    """From the configuration and this machine: the device, and what the tasks need."""
    problems = _device_problems(run.device)
    if run.recipe.suite.benchmarks:
        from aim_exp.evaluate.check import check_suite

        download = () if run.settings["plan"] else run.unscored
        problems += check_suite(run.recipe.suite, download)
    return problems


def header_problems(run: Run) -> list[str]:
    """From headers and companions, beside `misfits`: templates, loading, longest prompts."""
    problems = template_problems(run.template_sources, run.template)
    base = run.recipe.population.base
    scored = run.recipe.population.models if run.recipe.suite.benchmarks else ()
    loaded = [*scored, *([base] if run.plan.saliency and not scored else [])]
    there = [open_model(model) for model in loaded if model.path.is_dir()]
    layouts = run.store.root / LAYOUTS
    problems += filter(None, (loading_problem(each, layouts) for each in there))
    if not base.path.is_dir():
        return problems
    block_size = run.calibration.block_size
    longest = open_model(base).text_config.get("max_position_embeddings")
    reads = run.plan.saliency or run.recipe.expert_texts
    if reads and isinstance(longest, int) and block_size > longest:
        problems.append(
            f"calibration.block_size={block_size}: base takes at most {longest} tokens; "
            f"set calibration.block_size={longest}"
        )
    return problems


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
