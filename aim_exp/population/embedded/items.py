"""The kinds of tasks of the embedded population: test items, and examples to train on.

The benchmark `tiny_KIND` asks the test items of a kind. There are several sets of them, which
share no prompt, so that every replicate of a study can have its own; no prompt of any of them
is ever in the training stream. Of capitals there is one set: what is recalled is what was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from random import Random
from typing import Any, NamedTuple

from aim_exp.population.embedded import code, facts, instructions, maths
from aim_exp.population.embedded.example import Example, distinct_items

SET_SIZE = 150
SETS = 15
"""How many sets there are: `mbpp` has 2304 prompts to test with."""


class _Task(NamedTuple):
    example: Callable[[Random], Example]
    item: Callable[[Random], dict[str, Any]]


_TASKS = {
    "humaneval": _Task(code.humaneval_example, code.humaneval_item),
    "mbpp": _Task(code.mbpp_example, code.mbpp_item),
    "math": _Task(maths.math_example, maths.math_item),
    "gsm8k": _Task(maths.gsm8k_example, maths.gsm8k_item),
    "ifeval": _Task(instructions.ifeval_example, instructions.ifeval_item),
}
_RECALL = "mmlu"

KINDS = ("humaneval", "mbpp", "math", "gsm8k", _RECALL, "ifeval")


def test_items(kind: str, items_seed: int = 0) -> list[dict[str, Any]]:  # noqa: PT028
    """A set of test items, the same for every population; the task's module tells their keys.

    150 items of one of the `SETS` sets, which `items_seed` counts from 0; of `mmlu` always the
    same 112.
    """
    assert 0 <= items_seed < SETS, items_seed
    if kind == _RECALL:
        return facts.mmlu_items()
    return list(_items(kind, items_seed + 1)[-SET_SIZE:])


def training_examples(kind: str, rng: Random) -> Iterator[Example]:
    """Examples without end, drawn with replacement, none with the prompt of a test item."""
    draw = facts.mmlu_example if kind == _RECALL else _TASKS[kind].example
    while True:
        example = draw(rng)
        if example.prompt not in _held_out_prompts(kind):
            yield example


@cache
def _items(kind: str, sets: int) -> tuple[dict[str, Any], ...]:
    """Of the first so many sets, one behind the other."""
    return tuple(islice(distinct_items(_TASKS[kind].item, kind), sets * SET_SIZE))


@cache
def _held_out_prompts(kind: str) -> frozenset[str]:
    items = facts.mmlu_items() if kind == _RECALL else _items(kind, SETS)
    return frozenset(item["prompt"] for item in items)
