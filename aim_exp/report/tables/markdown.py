"""A table in Markdown, and texts in which nothing is markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aim_exp.report.tables.table import Cell, Table

MARKUP = re.compile(r"[\\*>]|<(?!\d)|&(?=#?\w+;)|\](?=\()")
CODE = re.compile("(`[^`]+`)")


def escape_markdown(text: str) -> str:
    """With a backslash before what would be read as emphasis, HTML or a link.

    Words between backticks stay code, in which nothing is.
    """
    parts = CODE.split(text)
    parts[::2] = [MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def as_markdown(table: Table) -> str:
    """Rows only: sections are not told apart, and what stands below a cell has a line of its own.

    Title and legend are the template's.
    """
    headings = [escape_markdown(column.heading) for column in table.columns]
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [headings, rules, *_rows(table)]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def _rows(table: Table) -> Iterator[list[str]]:
    for row in table.rows:
        yield [_cell(cell) for cell in row.cells]
        if any(cell.below for cell in row.cells):
            yield [f"*{cell.below}*" if cell.below else "" for cell in row.cells]


def _cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return f"{f'**{text}**' if cell.strong else text} {cell.detail}".rstrip()
