"""What keeps a run from working, told before any work is done: a list for each thing at hand."""

from __future__ import annotations

from collections.abc import Sequence

from aim_exp.checkpoint.fit import fit_problems
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.templates import template_problems
from aim_exp.run.run import GIVEN_KEY, Run
from aim_exp.types import ModelRef


def configuration_problems(run: Run) -> list[str]:
    """From the configuration and this machine: the device, and what the tasks need."""
    problems = _device_problems(run.device)
    if run.recipe.suite.benchmarks:
        from aim_exp.evaluate.check import check_suite

        problems += check_suite(run.recipe.suite)
    return problems


def header_problems(run: Run) -> list[str]:
    """From the headers and companion files of the models that are on disk."""
    problems = template_problems(run.template_sources, run.template)
    base = run.recipe.population.base
    if not base.path.is_dir():
        return problems
    checkpoint = Checkpoint(base.path, "base")
    models = [model for model in _to_merge(run) if model.path.is_dir()]
    problems += fit_problems(
        checkpoint, [_checkpoint(model, run) for model in models], run.settings["vocabulary"]
    )
    block_size = run.calibration.block_size
    longest = checkpoint.text_config.get("max_position_embeddings")
    if run.plan.saliency and longest is not None and block_size > longest:
        problems.append(
            f"calibration.block_size={block_size}: base takes at most {longest} tokens; "
            f"set calibration.block_size={longest}"
        )
    return problems


def unchecked(run: Run) -> list[str]:
    """The names of the models whose headers are not at hand: still to be trained or fetched."""
    models = (run.recipe.population.base, *_to_merge(run))
    return [model.name for model in models if not model.path.is_dir()]


def _to_merge(run: Run) -> Sequence[ModelRef]:
    given = run.recipe.given
    return [*run.recipe.population.experts, *([given] if given else [])]


def _checkpoint(model: ModelRef, run: Run) -> Checkpoint:
    return Checkpoint(model.path, GIVEN_KEY if model is run.recipe.given else model.name)


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
