"""The embedded population as the rest of the project sees it. Cheap to import: no torch."""

import copy
import sys
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from aim_exp.population.embedded import phases

RECIPE_VERSION = 2
"""Counts up when a change in this package changes the weights."""

DTYPE = "float32"
EXPERTS = tuple(phase.name for phase in phases.EXPERTS)
N_EXAMPLES = 1024
"""To measure an expert with."""
SPECIALTY = {phase.name: tuple(f"tiny_{kind}" for kind in phase.mix) for phase in phases.EXPERTS}
"""By expert, the benchmarks of `conf/benchmarks/tiny.yaml` that ask what it was trained for."""


def recipe(seed: int) -> dict[str, Any]:
    """What the weights depend on, for a content key; found without training or torch."""
    return {
        "recipe": RECIPE_VERSION,
        "seed": seed,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",  # the text differs
        **_libraries(),
    }


@cache
def expert_examples(expert: str) -> list[str]:
    """Examples of what `expert` was trained to do, as texts; none has the prompt of a test item.

    They are drawn as those of training are, with another seed.
    """
    from aim_exp.population.embedded.items import training_examples

    (mix,) = (phase.mix for phase in phases.EXPERTS if phase.name == expert)
    texts: list[str] = []
    for kind, share in mix.items():
        examples = training_examples(kind, Random(f"calibration of {expert} by {kind}"))
        texts += [e.prompt + e.answer for e in islice(examples, round(share * N_EXAMPLES))]
    return texts


@cache
def _libraries() -> dict[str, str]:
    return {
        "torch": version("torch").partition("+")[0],
        "tokenizers": version("tokenizers"),
    }


def build_population(folder: Path, seed: int) -> None:
    """Train the four models and write `folder/{base,code,instruct,math}`.

    Each is an ordinary Hugging Face folder: weights, configuration, tokenizer. Those that are
    there, of a training that was cut off, stay as they are.
    """
    from aim_exp.population.embedded.tokenizer import train_tokenizer
    from aim_exp.population.embedded.trainer import make_model, new_model, reproducible

    folder.mkdir(parents=True, exist_ok=True)
    with reproducible(seed):
        tokenizer = train_tokenizer()
        base = new_model()
        make_model(base, tokenizer, phases.BASE, seed, folder)
        for phase in phases.EXPERTS:
            make_model(copy.deepcopy(base), tokenizer, phase, seed, folder)
