"""Markdown's tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int
) -> str:
    """The first columns hold text, the others numbers, to the right."""
    rules = ["---"] * text_columns + ["---:"] * (len(headings) - text_columns)
    lines = [headings, rules, *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
