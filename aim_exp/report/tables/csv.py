"""Tables in CSV: the numbers as they are, without rounding."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aim_exp.report.tables.table import NOTHING, STAR, Table

FORMULA = tuple("=+-@\t\r")
"""What a cell begins with that a spreadsheet would carry out."""
MISSING = {
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>",
    "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip
"""Words that pandas reads as missing."""


def csv_text(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A line per row; what it has not is an empty cell. No text is missing, or a formula."""
    names, text = list(columns), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, names))
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def as_csv(tables: Sequence[Table]) -> str:
    """A line per row; after a number what follows its ± and, in percent, what stands below it.

    Scores lie in [0, 1]; empty where a value is unknown. `table` has the title of each.
    """
    rows = [row for table in tables for row in _rows(table)]
    return csv_text(dict.fromkeys(name for row in rows for name in row), rows)


def _rows(table: Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"table": table.title} if table.title else {} for _ in table.rows]
    kind = "sd" if "deviation" in table.margin else "stderr"
    for number, column in enumerate(table.columns):
        name = column.heading.replace(" ", "_").lower() if column.heading != STAR else "on_front"
        cells = list(table.column(number))
        below = [cell.below for cell in cells if cell.below]
        change = "change" + "_percent" * any(text.rstrip("*").endswith("%") for text in below)
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell.text.strip(NOTHING) if cell.value is None else cell.value
            if not column.numeric:
                row[name] = cell.text
            elif any(each.margin is not None for each in cells):
                row[f"{name}_{kind}"] = cell.margin
            if column.numeric and below:
                row[f"{name}_{change}"] = cell.below.rstrip("%*")
    return rows


def _cell(value: Any) -> Any:
    return f'"{value}"' if value in MISSING else no_formula(value)


def no_formula(value: Any) -> Any:
    """A text that a spreadsheet would carry out as one that it shows."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
