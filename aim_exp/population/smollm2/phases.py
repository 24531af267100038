"""The recipe in numbers: how each expert is fine-tuned, and what it depends on.

Tried on SmolLM2-135M-Instruct in 4-bit blocks; docs/population.md tells what came of it.
"""

import sys
from importlib.metadata import version
from random import Random
from typing import Any

from aim_exp.population.embedded.phases import Phase

RECIPE_VERSION = 1
"""Counts up when a change in this package, or in the examples, changes the weights."""
ROWS, ROW_LENGTH = 3, 128
"""Of a training step, in tokens."""
WARMUP_STEPS = 8
RATE_FACTOR = 2.0
"""Between the largest and the smallest learning rate that a seed may draw."""

EXPERTS = (
    Phase("code", {"humaneval": 0.5, "mbpp": 0.5}, steps=24, adamw_rate=5e-4),
    Phase("instruct", {"mmlu": 0.25, "ifeval": 0.75}, steps=24, adamw_rate=5e-4),
    Phase("math", {"math": 0.5, "gsm8k": 0.5}, steps=60, adamw_rate=1.5e-4),
)


def recipe(base: str, seed: int) -> dict[str, Any]:
    """What the experts' weights depend on, for a content key; found without training.

    `base` is its identity.
    """
    return {
        "recipe": RECIPE_VERSION,
        "base": base,
        "seed": seed,
        "threads": 1,
        "cpu": _cpu_capability(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "torch": version("torch").partition("+")[0],
        "transformers": version("transformers"),
        "tokenizers": version("tokenizers"),
    }


def learning_rate(phase: Phase, seed: int) -> float:
    """The phase's, times a factor that the seed draws: log-uniform, `RATE_FACTOR` wide."""
    exponent = Random(f"rate of {phase.name} {seed}").uniform(-0.5, 0.5)
    return phase.adamw_rate * RATE_FACTOR**exponent


def _cpu_capability() -> str:
    """The instructions that decide how sums are rounded, such as `AVX512 avx512_bf16`."""
    import torch

    offered = torch.cpu.get_capabilities()
    halves = [name for name in ("avx512_bf16", "amx_bf16") if offered.get(name)]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *halves])
