"""A table in CSV: the numbers as they are, without rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aim_exp.report.tables.table import NOTHING, STAR, Column, Row, Table


def as_csv(tables: Sequence[Table]) -> str:
    """A line per row; after a number what follows its ± and, in percent, what stands below it.

    Scores lie in [0, 1]; empty where a value is unknown. `table` has the title of each.
    """
    import pandas as pd

    rows = [dict(_row(table, row)) for table in tables for row in table.rows]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def _row(table: Table, row: Row) -> Iterator[tuple[str, object]]:
    if table.title:
        yield "table", table.title
    for column, cell in zip(table.columns, row.cells, strict=True):
        name = _name(column)
        if not column.numeric:
            yield name, cell.text
            continue
        yield name, cell.text.strip(NOTHING) if cell.value is None else cell.value
        others = list(table.column(table.columns.index(column)))
        if any(other.margin is not None for other in others):
            yield f"{name}_{_spread(table)}", cell.margin
        if any(other.below for other in others):
            yield f"{name}_change_percent", cell.below.rstrip("%")


def _name(column: Column) -> str:
    return "on_front" if column.heading == STAR else column.heading.replace(" ", "_").lower()


def _spread(table: Table) -> str:
    return "sd" if "deviation" in table.margin else "stderr"
