"""The kinds of tasks of the embedded population: test items, and examples to train on.

The benchmark `tiny_KIND` asks the test items of a kind. There are several sets of them, which
share no prompt, so that every replicate of a study can have its own; no prompt of any of them
is ever in the training stream. What is `FIXED` has one set: of capitals, since what is recalled
is what was trained; of plain text, since there is no more.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from random import Random
from typing import Any

from aim_exp.population.embedded import code, facts, instructions, maths, retained
from aim_exp.population.embedded.example import Draw, Example, distinct_items

SET_SIZE = 150
SETS = 15
"""How many sets there are: `mbpp` has 2304 prompts to test with."""


_TASKS: Mapping[str, Draw] = {
    "humaneval": code.humaneval,
    "mbpp": code.mbpp,
    "math": maths.math,
    "gsm8k": maths.gsm8k,
    "ifeval": instructions.ifeval,
}
_RECALL = "mmlu"
FIXED: Mapping[str, Callable[[], list[dict[str, Any]]]] = {
    _RECALL: facts.mmlu_items,
    "continuation": retained.continuation_items,
    "text": retained.text_items,
}
"""The kinds that have the same items whatever the seed."""

KINDS = ("humaneval", "mbpp", "math", "gsm8k", _RECALL, "ifeval")
"""Those that are trained."""


def test_items(kind: str, items_seed: int = 0) -> list[dict[str, Any]]:  # noqa: PT028
    """A set of test items, the same for every population; the task's module tells their keys.

    150 items of one of the `SETS` sets, which `items_seed` counts from 0; of what is `FIXED` always
    the same.
    """
    assert 0 <= items_seed < SETS, items_seed
    if kind in FIXED:
        return FIXED[kind]()
    return _items(kind, items_seed + 1)[-SET_SIZE:]


def training_examples(kind: str, rng: Random) -> Iterator[Example]:
    """Examples without end, drawn with replacement, none with the prompt of a test item."""
    draw = facts.mmlu if kind == _RECALL else _TASKS[kind]
    while True:
        item = draw(rng, False)
        if item["prompt"] not in _held_out_prompts(kind):
            yield Example(item["prompt"], item["answer"])


def _items(kind: str, sets: int) -> list[dict[str, Any]]:
    """Of the first so many sets, one behind the other."""
    known, more = _stream(kind)
    known.extend(islice(more, max(0, sets * SET_SIZE - len(known))))
    return known[: sets * SET_SIZE]


@cache
def _stream(kind: str) -> tuple[list[dict[str, Any]], Iterator[dict[str, Any]]]:
    """The items that were drawn so far, and those still to come."""
    return [], distinct_items(_TASKS[kind], kind)


@cache
def _held_out_prompts(kind: str) -> frozenset[str]:
    items = facts.mmlu_items() if kind == _RECALL else _items(kind, SETS)
    return frozenset(item["prompt"] for item in items)
