"""What a model trains on, and how test items are drawn."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple


class Example(NamedTuple):
    """A prompt and what should follow it; the answer brings its leading space if it needs one."""

    prompt: str
    answer: str


def draw_distinct(
    draw: Callable[[Random], dict[str, Any]], name: str, count: int
) -> list[dict[str, Any]]:
    """The first `count` items of `draw` with distinct prompts, always the same for `name`."""
    rng = Random(f"test items of {name}")
    items: dict[str, dict[str, Any]] = {}
    while len(items) < count:
        item = draw(rng)
        items.setdefault(item["prompt"], item)
    return list(items.values())
