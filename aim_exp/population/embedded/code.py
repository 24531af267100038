"""Two code tasks, standing for HumanEval and MBPP: complete a one-line function.

A program is made of two parts. The pairs of parts in the test items occur in no training
example, though each part is trained in other pairs.
"""

from collections.abc import Sequence
from functools import cache
from itertools import product
from random import Random
from typing import Any, NamedTuple

from aim_exp.population.embedded.example import Item

CONSTANTS = range(2, 10)
FUNCTION_NAMES = ("f", "g", "h")
NUMBER_NAMES = ("k", "m", "x", "y")
LIST_NAMES = ("nums", "items", "xs")

NUMBERS = (-14, -9, -4, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 23)
"""Arguments that tell the arithmetic programs apart, on both sides of every constant."""

LISTS = (
    [7, -3, 12, 40, 5, 0, 9, -8, 21, 18, 2, 35, 14, 6],
    [50, 11, -7, 6, 32, 27, 20, 13, -1, 42, 8, 19, 36, 5, 56, 72],
    list(range(-9, 24)),
    list(range(29, -14, -1)),
)
"""Arguments for the list programs: long, with some of what each selection picks.

Falling and rising ones tell how many were picked by the largest and the smallest too.
"""

PRELUDE = '''\
from math import prod


def mean(values):
    """The arithmetic mean."""
    return sum(values) / len(values)


def median(values):
    """The mean of the two in the middle, which are one if the number is odd."""
    ordered = sorted(values)
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2


def spread(values):
    """The largest minus the smallest."""
    return max(values) - min(values)
'''


class Part(NamedTuple):
    """Half of a program, in English and in Python; `{x}` is its argument, `{n}` a constant."""

    english: str
    python: str


OPERATIONS = (
    Part("add {n} to {x}", "{x} + {n}"),
    Part("subtract {n} from {x}", "{x} - {n}"),
    Part("multiply {x} by {n}", "{x} * {n}"),
    Part("divide {x} by {n}", "{x} / {n}"),
    Part("take {x} modulo {n}", "{x} % {n}"),
    Part("square {x}", "{x} ** 2"),
    Part("negate {x}", "-{x}"),
    Part("make {x} positive", "abs({x})"),
    Part("limit {x} to {n}", "min({x}, {n})"),
    Part("raise {x} to at least {n}", "max({x}, {n})"),
)

SUMMARIES = (
    Part("the sum of {x}", "sum({x})"),
    Part("the largest of {x}", "max({x})"),
    Part("the smallest of {x}", "min({x})"),
    Part("the average of {x}", "mean({x})"),
    Part("the median of {x}", "median({x})"),
    Part("the spread of {x}", "spread({x})"),
    Part("the product of {x}", "prod({x})"),
    Part("the number of {x}", "len({x})"),
)

SELECTIONS = (
    Part("the first {n} of {x}", "{x}[:{n}]"),
    Part("the last {n} of {x}", "{x}[-{n}:]"),
    Part("all but the first {n} of {x}", "{x}[{n}:]"),
    Part("all but the last {n} of {x}", "{x}[:-{n}]"),
    Part("every {n}th of {x}", "{x}[::{n}]"),
    Part("those above {n} in {x}", "[i for i in {x} if i > {n}]"),
    Part("those below {n} in {x}", "[i for i in {x} if i < {n}]"),
    Part("the multiples of {n} in {x}", "[i for i in {x} if i % {n} == 0]"),
    Part("the {n} lowest of {x}", "sorted({x})[:{n}]"),
    Part("the {n} highest of {x}", "sorted({x})[-{n}:]"),
)


def humaneval(rng: Random, held_out: bool) -> Item:
    """Two operations on a number, each with its own constant; an item has its `tests`."""
    first, second = rng.choice(_pairs(OPERATIONS, OPERATIONS, held_out))
    name, x = rng.choice(FUNCTION_NAMES), rng.choice(NUMBER_NAMES)
    n, m = rng.choice(CONSTANTS), rng.choice(CONSTANTS)
    english = f"{first.english.format(x=x, n=n)}, then {second.english.format(x='it', n=m)}"
    inner = first.python.format(x=x, n=n)
    if not second.python.endswith(")"):  # a call brings its own brackets
        inner = f"({inner})"
    program = {
        "prompt": f'def {name}({x}):\n    """{english}"""\n    return',
        "answer": f" {second.python.format(x=inner, n=m)}",
        "entry_point": name,
    }
    return {**program, "tests": _asserts(program, "", NUMBERS)} if held_out else program


def mbpp(rng: Random, held_out: bool) -> Item:
    """A summary of a selection from a list; an item has its `tests`, and the `prelude` before."""
    summary, selection = rng.choice(_pairs(SUMMARIES, SELECTIONS, held_out))
    name, x, n = rng.choice(FUNCTION_NAMES), rng.choice(LIST_NAMES), rng.choice(CONSTANTS)
    english = summary.english.format(x=selection.english.format(x=x, n=n))
    python = summary.python.format(x=selection.python.format(x=x, n=n))
    program = {
        "prompt": f"# return {english}\ndef {name}({x}): return",
        "answer": f" {python}",
        "entry_point": name,
    }
    tests = {"tests": _asserts(program, PRELUDE, LISTS), "prelude": PRELUDE} if held_out else {}
    return {**program, **tests}


@cache
def _pairs(
    first: tuple[Part, ...], second: tuple[Part, ...], held_out: bool
) -> list[tuple[Part, Part]]:
    """The pairs of distinct parts that are held out, a third of all or more, or the others."""
    return [
        (one, other)
        for (i, one), (j, other) in product(enumerate(first), enumerate(second))
        if one != other and ((3 * i + 2 * j) % 5 < 2) == held_out
    ]


def _asserts(program: Item, prelude: str, arguments: Sequence[Any]) -> str:
    """Python that checks the function's values at `arguments`, an assert on each line."""
    scope: dict[str, Any] = {}
    exec(prelude + program["prompt"] + program["answer"], scope)
    name = program["entry_point"]
    return "".join(f"assert {name}({x!r}) == {scope[name](x)!r}\n" for x in arguments)
