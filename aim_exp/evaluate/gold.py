"""How likely the gold answers are to a model: continuous outcomes beside the scores.

They move where no answer changes, so that they see smaller differences; they are recorded, and
never objectives. Of multiple choice the gold answer is the right choice. A task whose answers are
generated names the column that holds it: `metadata: {gold: COLUMN}`; it is asked for after the
prompt as it was put.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from lm_eval.api.instance import Instance

from aim_exp.evaluate.jackknife import jackknife_stderr

LOGLIKELIHOOD = "gold_loglikelihood"
"""In nats, the mean over items; per item in the samples."""
BITS_PER_BYTE = "bits_per_byte"
"""Of all gold answers together."""


class Likelihood(NamedTuple):
    """Of an item's gold answer, in nats, and how many bytes it has."""

    nats: float
    n_bytes: int


@dataclass(frozen=True)
class GoldOutcomes:
    """By task and item's number; empty where a task has no gold answers."""

    items: Mapping[tuple[str, Any], Likelihood]

    @property
    def estimates(self) -> dict[str, tuple[float, float | None]]:
        """Over all items, by key, with standard errors."""
        values = list(self.items.values())
        if not values:
            return {}
        nats = [value.nats for value in values]
        error = float(np.std(nats, ddof=1)) / math.sqrt(len(nats)) if len(nats) > 1 else None
        bits = _bits_per_byte(values), jackknife_stderr(_bits_per_byte, values)
        return {
            f"{LOGLIKELIHOOD},none": (float(np.mean(nats)), error),
            f"{BITS_PER_BYTE},none": bits,
        }


def gold_columns(tasks: Mapping[str, Any]) -> dict[str, str]:
    """By task the column that holds the gold answer, of those whose answers are generated."""
    return {name: column for name, task in tasks.items() if (column := _gold_column(task))}


def gold_outcomes(
    lm: Any, tasks: Mapping[str, Any], samples: Mapping[str, Sequence[Any]]
) -> GoldOutcomes:
    """Of the items in lm-eval's `samples`, by task; `lm` is asked for those that it was not."""
    likelihoods: dict[tuple[str, Any], Likelihood] = {}
    for name, answered in samples.items():
        items = {sample["doc_id"]: sample for sample in answered}
        of_task = dict(_of_task(lm, tasks[name], items))
        if len(of_task) < len(items):
            return GoldOutcomes({})
        likelihoods |= {(name, number): likelihood for number, likelihood in of_task.items()}
    return GoldOutcomes(likelihoods)


def _of_task(lm: Any, task: Any, items: Mapping[Any, Any]) -> Iterator[tuple[Any, Likelihood]]:
    if task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input:
        for number, sample in items.items():
            right = _right_choice(task, sample["doc"])
            if right is not None:
                text = sample["arguments"][right][1]
                yield number, Likelihood(sample["resps"][right][0][0], len(text.encode()))
    if column := _gold_column(task):
        requests = [
            Instance(
                request_type="loglikelihood",
                doc=sample["doc"],
                arguments=(sample["arguments"][0][0], sample["doc"][column]),
                idx=0,
                metadata=(None, number, 1),  # of no task: its items are done already
            )
            for number, sample in items.items()
        ]
        for number, (nats, _) in zip(items, lm.loglikelihood(requests), strict=True):
            gold = items[number]["doc"][column]
            yield number, Likelihood(nats, len(gold.encode()))


def _gold_column(task: Any) -> str | None:
    """Where answers are generated."""
    generated = task.OUTPUT_TYPE == "generate_until"
    return (task.get_config("metadata") or {}).get("gold") if generated else None


def _right_choice(task: Any, doc: Any) -> int | None:
    """None where several are right, or none."""
    target, choices = task.doc_to_target(doc), task.doc_to_choice(doc)
    if isinstance(target, str):
        return choices.index(target) if target in choices else None
    return target if isinstance(target, int) and 0 <= target < len(choices) else None


def _bits_per_byte(values: Sequence[Likelihood]) -> float:
    total = sum(value.nats for value in values)
    return -total / math.log(2) / sum(value.n_bytes for value in values)
