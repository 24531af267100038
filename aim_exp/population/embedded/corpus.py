"""Plain text that ships with Python: the language reference behind `help()`.

Its topics differ between Python versions, and share paragraphs: a paragraph of a held-out
topic is kept from the training text wherever else it stands.
"""

import re
from collections.abc import Iterator
from functools import cache
from pydoc_data.topics import topics

CALIBRATION_TOPICS = (
    "assignment",
    "debugger",
    "execmodel",
    "formatstrings",
    "import",
    "naming",
    "string-methods",
    "strings",
    "typesmapping",
    "with",
)

TEST_TOPICS = ("calls", "comparisons", "typesseq")
"""Held out from training and calibration: what a model keeps of plain text is measured on them."""

MIN_PARAGRAPH_WORDS = 8
MIN_LETTER_SHARE = 0.8
"""Of a paragraph's characters, spaces included: grammar, code and tables have fewer."""

PASSAGE_WORDS = 50
"""A passage ends with the sentence that reaches this many."""
MIN_PASSAGE_WORDS, MAX_PASSAGE_WORDS = 30, 120


def training_text() -> list[str]:
    """The distinct paragraphs to train on, none of which is in a held-out topic."""
    kept_back = (*CALIBRATION_TOPICS, *TEST_TOPICS)
    held_out = {paragraph for topic in kept_back for paragraph in _paragraphs(topic)}
    open_topics = sorted(set(topics) - set(kept_back))
    paragraphs = (paragraph for topic in open_topics for paragraph in _paragraphs(topic))
    return [paragraph for paragraph in dict.fromkeys(paragraphs) if paragraph not in held_out]


def calibration_texts() -> list[str]:
    """Their topics as distinct passages of 30 to 120 words, in order."""
    passages = (passage for topic in CALIBRATION_TOPICS for passage in _passages(topic))
    return list(dict.fromkeys(passages))


def test_texts() -> list[str]:
    """The same of the topics to test with."""
    passages = (passage for topic in TEST_TOPICS for passage in _passages(topic))
    return list(dict.fromkeys(passages))


@cache
def _paragraphs(topic: str) -> tuple[str, ...]:
    """A topic's paragraphs of prose, each on one line; none if this Python lacks the topic."""
    blocks = (" ".join(block.split()) for block in topics.get(topic, "").split("\n\n"))
    return tuple(block for block in blocks if _is_prose(block))


def _is_prose(block: str) -> bool:
    letters = sum(character.isalpha() or character == " " for character in block)
    return len(block.split()) >= MIN_PARAGRAPH_WORDS and letters >= MIN_LETTER_SHARE * len(block)


def _passages(topic: str) -> Iterator[str]:
    """A topic's prose cut at the ends of sentences; what is left over at its end is dropped."""
    words: list[str] = []
    for sentence in re.split(r"(?<=[.:]) ", " ".join(_paragraphs(topic))):
        words += sentence.split()
        if len(words) >= PASSAGE_WORDS:
            if MIN_PASSAGE_WORDS <= len(words) <= MAX_PASSAGE_WORDS:
                yield " ".join(words)
            words = []
