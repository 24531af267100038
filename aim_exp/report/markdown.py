"""Markdown's tables, and texts in which nothing is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MARKUP = re.compile(r"[\\*>]|<(?!\d)|&(?=#?\w+;)|\](?=\()")
CODE = re.compile("(`[^`]+`)")


def escape_markdown(text: str) -> str:
    """With a backslash before what would be read as emphasis, HTML or a link.

    Words between backticks stay code, in which nothing is.
    """
    parts = CODE.split(text)
    parts[::2] = [MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def markdown_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int
) -> str:
    """The first columns hold text, the others numbers, to the right."""
    rules = ["---"] * text_columns + ["---:"] * (len(headings) - text_columns)
    lines = [headings, rules, *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
