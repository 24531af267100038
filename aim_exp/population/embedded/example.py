"""What a model trains on, and how test items are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple


class Example(NamedTuple):
    """A prompt and what should follow it; the answer brings its leading space if it needs one."""

    prompt: str
    answer: str


def distinct_items(draw: Callable[[Random], dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    """What `draw` gives with distinct prompts, always the same for `kind`, without end."""
    rng, prompts = Random(f"test items of {kind}"), set[str]()
    while True:
        item = draw(rng)
        if item["prompt"] not in prompts:
            prompts.add(item["prompt"])
            yield item
