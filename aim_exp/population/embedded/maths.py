"""Two tasks with numbers, standing for MATH and GSM8K: worked sums, and word problems."""

from random import Random
from typing import NamedTuple

from aim_exp.population.embedded.example import Item

NAMES = ("Ann", "Ben", "Dan", "Eva", "Ida", "Leo", "Mia", "Max", "Sam", "Tom", "Una", "Zoe")
THINGS = ("apples", "balls", "books", "cards", "coins", "cups", "eggs", "hats", "keys", "pens")


class Story(NamedTuple):
    """A word problem and its sum: `{a}` and `{b}` are the numbers, the larger first."""

    text: str
    operator: str


STORIES = (
    Story("{name} has {a} {things} and finds {b}.", "+"),
    Story("{name} had {a} {things}. Then {other} brings {b} more.", "+"),
    Story("{name} buys {a} {things} and {other} buys {b}.", "+"),
    Story("{name} has {a} {things} and loses {b}.", "-"),
    Story("{name} had {a} {things}. Then {name} sells {b}.", "-"),
    Story("Of {a} {things} that {name} has, {other} takes {b}.", "-"),
    Story("{name} fills {a} boxes with {b} {things} each.", "*"),
    Story("{name} buys {a} bags of {b} {things}.", "*"),
)
"""The last two multiply, and draw smaller numbers."""


def math(rng: Random, held_out: bool) -> Item:
    """A sum with its steps, such as `Compute: 4+2+9` and `=6+9=15`, and its `result`."""
    a, b, c = (rng.randint(1, 12) for _ in range(3))
    first, second = rng.choice("+-"), rng.choice("+-")
    partial = _apply(first, a, b)
    result = _apply(second, partial, c)
    prompt, answer = f"Compute: {a}{first}{b}{second}{c}", f"={partial}{second}{c}={result}"
    return {"prompt": prompt, "answer": answer, "result": str(result)}


def gsm8k(rng: Random, held_out: bool) -> Item:
    """A word problem, `Dan has 13 keys and loses 9. How many keys?` and `13-9=4`, its `result`."""
    story = rng.choice(STORIES)
    if story.operator == "*":
        a, b = rng.randint(2, 6), rng.randint(2, 6)
    else:
        a, b = sorted((rng.randint(2, 20), rng.randint(2, 20)), reverse=True)
    name, other = rng.sample(NAMES, 2)
    things = rng.choice(THINGS)
    text = story.text.format(name=name, other=other, things=things, a=a, b=b)
    prompt, result = f"Problem: {text} How many {things}?\nSolution:", _apply(story.operator, a, b)
    answer = f" {a}{story.operator}{b}={result}"
    return {"prompt": prompt, "answer": answer, "result": str(result)}


def _apply(operator: str, a: int, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[operator]
