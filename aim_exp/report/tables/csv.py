"""A table in CSV: the numbers as they are, without rounding."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from aim_exp.report.files import no_formula
from aim_exp.report.tables.table import NOTHING, STAR, Column, Row, Table


def as_csv(tables: Sequence[Table]) -> str:
    """A line per row; after a number what follows its ± and, in percent, what stands below it.

    Scores lie in [0, 1]; empty where a value is unknown. `table` has the title of each.
    """
    rows = [dict(row) for table in tables for row in _rows(table)]
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(table: Table) -> Iterator[Iterator[tuple[str, object]]]:
    columns = [list(table.column(number)) for number in range(len(table.columns))]
    margins = [any(cell.margin is not None for cell in column) for column in columns]
    changes = [_change([cell.below for cell in column if cell.below]) for column in columns]
    for row in table.rows:
        yield _row(table, row, margins, changes)


def _row(
    table: Table, row: Row, margins: Sequence[bool], changes: Sequence[str]
) -> Iterator[tuple[str, object]]:
    """`margins` and `changes`: which columns have any, and what the latter are called."""
    if table.title:
        yield "table", no_formula(table.title)
    for number, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
        name = _name(column)
        if not column.numeric:
            yield name, no_formula(cell.text)
            continue
        yield name, cell.text.strip(NOTHING) if cell.value is None else cell.value
        if margins[number]:
            yield f"{name}_{'sd' if 'deviation' in table.margin else 'stderr'}", cell.margin
        if changes[number]:
            yield f"{name}_{changes[number]}", cell.below.rstrip("%*")


def _change(texts: Sequence[str]) -> str:
    percent = any(text.rstrip("*").endswith("%") for text in texts)
    return f"change{'_percent' * percent}" if texts else ""


def _name(column: Column) -> str:
    return (
        "on_front"
        if column.heading == STAR
        else no_formula(column.heading.replace(" ", "_").lower())
    )
