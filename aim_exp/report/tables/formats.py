"""The tables of a paper, written: Markdown to read, LaTeX to include, CSV to compute with."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from aim_exp.report.files import write_atomically
from aim_exp.report.markdown import escape_markdown, markdown_table
from aim_exp.report.results import Results
from aim_exp.report.tables import Entry, ScoreTable, score_tables
from aim_exp.report.tables.latex import as_latex
from aim_exp.report.tables.layout import Cell, Row, layout

FOLDER = "tables"
NAME = "scores"


def write_score_tables(results: Results, directory: Path) -> list[Path]:
    """`tables/scores.md`, `.tex` and `.csv` in `directory`; none where nothing was scored."""
    tables = score_tables(results)
    if not tables:
        return []
    return [
        write_atomically(path, partial(_write, text=text(tables)))
        for path, text in _files(directory).items()
    ]


def score_files(directory: Path) -> list[Path]:
    """Those that were written into `directory`."""
    return [path for path in _files(directory) if path.exists()]


def as_markdown(tables: Sequence[ScoreTable]) -> str:
    """Each table with its caption above."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def as_csv(tables: Sequence[ScoreTable]) -> str:
    """A row per model: mean, deviation, standard error and change of every column.

    Scores lie in [0, 1] as in `results.csv`, changes are in percent; empty where unknown.
    """
    rows = [dict(_csv_row(table, entry)) for table in tables for entry in table.entries]
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _files(directory: Path) -> dict[Path, Callable[[Sequence[ScoreTable]], str]]:
    forms = {"md": as_markdown, "tex": as_latex, "csv": as_csv}
    return {directory / FOLDER / f"{NAME}.{ending}": text for ending, text in forms.items()}


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _markdown(table: ScoreTable) -> str:
    shown = layout(table)
    rows = [
        line
        for block in shown.blocks
        for row in shown.named_once(block)
        for line in _markdown_lines(row)
    ]
    headings = [escape_markdown(text) for text in (*shown.leads, *shown.headings)]
    text = markdown_table(headings, rows, len(shown.leads))
    return f"{escape_markdown(table.caption)}\n\n{text}"


def _markdown_lines(row: Row) -> Iterator[list[str]]:
    """The model's, and the change below it."""
    yield [_markdown_cell(cell) for cell in row]
    if any(cell.change for cell in row):
        yield [f"*{cell.change}*" if cell.change else "" for cell in row]


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text) + (f" ± {cell.deviation}" if cell.deviation else "")
    return f"**{text}**" if cell.bold else text


def _csv_row(table: ScoreTable, entry: Entry) -> Iterator[tuple[str, object]]:
    yield from table.shared.items()
    yield "model", entry.kind
    yield "experts", entry.experts
    yield "method", entry.method
    yield "aim", entry.aim
    yield "omega", entry.omega
    yield "n", entry.n
    for column in table.columns:
        spread, name = entry.spreads.get(column), column.replace(" ", "_")
        yield name, spread and spread.mean
        yield f"{name}_sd", spread and spread.deviation
        yield f"{name}_stderr", spread and spread.stderr
        yield f"{name}_change_percent", (entry.changes or {}).get(column)
