"""What base can do before any expert is trained, and AIM is to protect: plain text, held out."""

from random import Random
from typing import Any

from aim_exp.population.embedded.corpus import test_texts

CONTINUATION_WORDS = 12
CHOICES = 4


def text_items() -> list[dict[str, Any]]:
    """Passages, each a `text`."""
    return [{"text": text} for text in test_texts()]


def continuation_items() -> list[dict[str, Any]]:
    """The first half of each passage, `prompt`; four `choices` to go on with, one its own: `label`.

    The others begin the second halves of other passages.
    """
    rng = Random("test items of continuation")
    halves = [_halves(text.split()) for text in test_texts()]
    items = []
    for index, (beginning, _) in enumerate(halves):
        others = rng.sample([i for i in range(len(halves)) if i != index], CHOICES - 1)
        label = rng.randrange(CHOICES)
        others.insert(label, index)
        choices = [f" {halves[i][1]}" for i in others]
        items.append({"prompt": beginning, "choices": choices, "label": label})
    return items


def _halves(words: list[str]) -> tuple[str, str]:
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle : middle + CONTINUATION_WORDS])
