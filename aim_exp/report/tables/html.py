"""A table in HTML: a fragment for a page, whose script sorts and filters it."""

from __future__ import annotations

from html import escape
from typing import Literal

from aim_exp.report.tables.table import STAR, Cell, Column, Row, Table

KEY = 16
"""Digits of a row's key on the page."""


def as_html(table: Table, *, sorted_by: str = "", labelled_by: str = "") -> str:
    """`<div class="scroll"><table>`, in it a `<tbody>` for each section; everything escaped.

    Numbers say by `data-sort` what they are, rows by `data-row` which row of the results
    they show. The column `sorted_by` is marked as sorted, the greatest first.
    """
    heads = "".join(_heading(column, column.heading == sorted_by) for column in table.columns)
    bodies = "\n".join(
        f"<tbody>\n{''.join(_row(table, row) for row in section)}</tbody>"
        for section in table.sections
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{escape(labelled_by)}">\n'
        f'<table class="sortable">\n<thead><tr>{heads}</tr></thead>\n{bodies}\n'
        "</table>\n</div>"
    )


def _heading(column: Column, is_sorted: bool) -> str:
    about = f' title="{escape(column.about)}"' if column.about else ""
    order = ' aria-sort="descending"' if is_sorted else ""
    return (
        f'<th scope="col" class="{_kind(column)}"{order}{about}>'
        f'<button type="button">{escape(column.heading)}</button></th>'
    )


def _kind(column: Column) -> Literal["number", "star", "word"]:
    if column.numeric:
        return "number"
    return "star" if column.heading == STAR else "word"


def _row(table: Table, row: Row) -> str:
    key = f' data-row="{escape(row.key[:KEY])}"' if row.key else ""
    cells = [
        _cell(cell, column, row, first=number == 0)
        for number, (cell, column) in enumerate(zip(row.cells, table.columns, strict=True))
    ]
    return f"<tr{key}>{''.join(cells)}</tr>\n"


def _cell(cell: Cell, column: Column, row: Row, *, first: bool) -> str:
    classes = " ".join(filter(None, [_kind(column), cell.tone, "best" * cell.strong]))
    order = "" if cell.value is None else f' data-sort="{cell.value:.6g}"'
    about = f' title="{escape(cell.about)}"' if cell.about else ""
    links = ", ".join(
        f'<a href="#{escape(anchor)}">{escape(text)}</a>' for text, anchor in row.links.items()
    )
    text = (links if first else "") or escape(cell.text)
    if cell.link:
        text = f'<a href="#{escape(cell.link)}">{text}</a>'
    text += f"<small>{escape(cell.detail)}</small>" if cell.detail else ""
    text += f'<small class="below">{escape(cell.below)}</small>' if cell.below else ""
    tag, scope = ("th", ' scope="row"') if first else ("td", "")
    return f'<{tag}{scope} class="{classes}"{order}{about}>{text}</{tag}>'
