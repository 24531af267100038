"""IFEval as lm-eval scores it, and the mean of its four metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lm_eval.tasks.ifeval.utils import agg_inst_level_acc as instruction_mean
from lm_eval.tasks.ifeval.utils import process_results

PROMPTS = ("prompt_level_strict_acc", "prompt_level_loose_acc")
INSTRUCTIONS = ("inst_level_strict_acc", "inst_level_loose_acc")


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Each metric's part for one prompt: a truth value, or one for each instruction."""
    four = process_results(doc, results)
    return {**four, "inferred_mean_acc": four}


def mean_of_four(items: Sequence[Mapping[str, Any]]) -> float:
    """The mean of the four metrics, each over all prompts or all instructions."""
    prompts = [fmean(item[name] for item in items) for name in PROMPTS]
    instructions = [instruction_mean([item[name] for item in items]) for name in INSTRUCTIONS]
    return fmean([*prompts, *instructions])
