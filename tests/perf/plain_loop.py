"""The paper's scripts, plainly: what a sweep costs where nothing is shared.

Load base and merged model, measure, relax and save a checkpoint for every omega; load it again
to score it. In one process, though the scripts take one for each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.perf.jobs import (
    CALIBRATION,
    MERGING,
    SAVING,
    SCORING,
    Clock,
    Measured,
    Seconds,
    files_in,
    sizes,
)  # fmt: skip


def plain_loop(
    methods: Sequence[str], omegas: Sequence[str], settings: Sequence[str], out: Path
) -> Measured:
    """A checkpoint for every omega, nothing shared. `out/cache` holds the population."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from aim_exp.aim.relaxation import relax
    from aim_exp.checkpoint.reader import Checkpoint
    from aim_exp.checkpoint.writer import CheckpointWriter
    from aim_exp.config.schema import register
    from aim_exp.evaluate.harness import Harness
    from aim_exp.merge.stream import stream_merge

    register()
    clock, scores = Clock(), []
    before = files_in(out)
    for method in methods:
        run = _built(method, settings, out / "cache")
        population = run.recipe.population
        base_path, merged_path = population.base.path, out / "models" / method
        tokenizer = AutoTokenizer.from_pretrained(base_path)
        with clock.part(MERGING):
            base = Checkpoint(base_path, "base")
            experts = [Checkpoint(model.path, model.name) for model in population.experts]
            with CheckpointWriter(merged_path, base, None) as writer:
                stream_merge(base, experts, run.recipe.method, writer, seed=0)
        for omega in omegas:
            path = merged_path
            if omega != "null":
                path = out / "models" / f"{method}-{omega}"
                with clock.part(SAVING):
                    model = AutoModelForCausalLM.from_pretrained(base_path).eval()
                    merged = AutoModelForCausalLM.from_pretrained(merged_path).eval()
                with clock.part(CALIBRATION):
                    saliency = _mean_inputs(model, run.calibration.blocks(tokenizer).ids)
                with clock.part(MERGING):
                    before_aim, weights = dict(model.named_parameters()), merged.named_parameters()
                    for name, weight in weights:
                        if name in saliency:
                            relaxed = relax(before_aim[name], weight, saliency[name], float(omega))
                            weight.data.copy_(relaxed)
                with clock.part(SAVING):
                    merged.save_pretrained(path)
                    tokenizer.save_pretrained(path)
            with clock.part(SAVING):
                model = AutoModelForCausalLM.from_pretrained(path).eval()
            with clock.part(SCORING):
                suite = run.recipe.suite
                harness = Harness.in_memory(model, tokenizer, batch_size=run.evaluator.batch_size)
                found = harness.evaluate(suite, suite.benchmarks, out / f"{path.name}.jsonl")
            scores.append(_headlines(suite, found))
            clock.end_job()
    return Measured(
        jobs=clock.jobs,
        counts={"calibrations": clock.times[CALIBRATION], "merges": len(methods)},
        written=sizes({path: size for path, size in files_in(out).items() if path not in before}),
        scores=scores,
        process=Seconds.now(),
    )


def _mean_inputs(model: Any, blocks: Any) -> dict[str, Any]:
    """The mean |x| of the inputs of every module with a weight, by the weight's name."""
    import torch

    sums: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def add(module: Any, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].abs().double().flatten(0, -2)
            sums[name] = sums.get(name, 0) + x.mean(0) / len(blocks)

        return add

    names = {id(weight): name for name, weight in model.named_parameters()}
    embedding = model.get_input_embeddings()
    hooks = [
        module.register_forward_pre_hook(hook(names[id(module.weight)]))
        for module in model.modules()
        if hasattr(module, "weight") and module.weight is not embedding.weight
    ]
    with torch.no_grad():
        for block in blocks:
            model(block[None])
    for one in hooks:
        one.remove()
    return {name: total.float() for name, total in sums.items()}


def _built(method: str, settings: Sequence[str], cache: Path) -> Any:
    """The run's parts, from the same configuration."""
    from hydra import compose, initialize_config_dir

    from aim_exp.config.build import build
    from aim_exp.config.schema import CONFIG_FOLDER

    overrides = [f"method={method}", f"cache_dir={cache}", *settings]
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", overrides=overrides)
    return build(config, {"method": method, "population": "tiny", "benchmarks": "tiny"})


def _headlines(suite: Any, found: Any) -> dict[str, float]:
    from aim_exp.evaluate.metrics import headline

    results = {b.name: headline(b, found[b.name].scores) for b in suite.benchmarks}
    return {name: result.score.value for name, result in results.items()}
