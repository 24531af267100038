"""What a model trains on, and how test items are drawn."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

Item = dict[str, Any]
"""`prompt` and `answer`, or `choices` and `label`; and what the task is scored by."""
Draw = Callable[[Random, bool], Item]
"""An item to train on, or where it is `held_out` one to test with: never the same prompt."""


class Example(NamedTuple):
    """A prompt and what should follow it; the answer brings its leading space if it needs one."""

    prompt: str
    answer: str


def distinct_items(draw: Draw, kind: str) -> Iterator[Item]:
    """What `draw` gives with distinct prompts, always the same for `kind`, without end."""
    rng, prompts = Random(f"test items of {kind}"), set[str]()
    while True:
        item = draw(rng, True)
        if item["prompt"] not in prompts:
            prompts.add(item["prompt"])
            yield item
