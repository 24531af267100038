"""The six kinds of tasks of the embedded population: test items, and examples to train on.

The benchmark `tiny_KIND` asks the test items of a kind.

No prompt of a test item is ever in the training stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from random import Random
from typing import Any, NamedTuple

from aim_exp.population.embedded import code, facts, instructions, maths
from aim_exp.population.embedded.example import Example


class _Task(NamedTuple):
    example: Callable[[Random], Example]
    test_items: Callable[[], list[dict[str, Any]]]


_TASKS = {
    "humaneval": _Task(code.humaneval_example, code.humaneval_items),
    "mbpp": _Task(code.mbpp_example, code.mbpp_items),
    "math": _Task(maths.math_example, maths.math_items),
    "gsm8k": _Task(maths.gsm8k_example, maths.gsm8k_items),
    "mmlu": _Task(facts.mmlu_example, facts.mmlu_items),
    "ifeval": _Task(instructions.ifeval_example, instructions.ifeval_items),
}

KINDS = tuple(_TASKS)


def test_items(kind: str) -> list[dict[str, Any]]:
    """The test items, the same for every population; the task's module tells their keys."""
    return _TASKS[kind].test_items()


def training_examples(kind: str, rng: Random) -> Iterator[Example]:
    """Examples without end, drawn with replacement, none with the prompt of a test item."""
    while True:
        example = _TASKS[kind].example(rng)
        if example.prompt not in _held_out_prompts(kind):
            yield example


@cache
def _held_out_prompts(kind: str) -> frozenset[str]:
    return frozenset(item["prompt"] for item in test_items(kind))
