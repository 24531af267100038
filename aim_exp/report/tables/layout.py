"""The tables of a paper as rows of texts, which the formats write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aim_exp.report.repeats import GAIN
from aim_exp.report.summary import printed
from aim_exp.report.tables import Entry, ScoreTable

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A text of a table, how it is set, and what stands below it."""

    text: str
    bold: bool = False
    deviation: str = ""
    """Over seeds."""
    change: str = ""
    """Relative to the plain merge."""


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Layout:
    """A table as rows of texts: `leads` are the headings of columns of text."""

    leads: tuple[str, ...]
    headings: tuple[str, ...]
    blocks: tuple[tuple[Row, ...], ...]

    @property
    def names(self) -> int:
        """The number of columns that name a merge; how AIM was applied to it is the last lead."""
        return len(self.leads) - 1

    def named_once(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Rows that follow one another, without the names that the one above has too."""
        above: tuple[Cell, ...] = ()
        for row in rows:
            same = [row[: i + 1] == above[: i + 1] for i in range(self.names)]
            above = row[: self.names]
            lead = [Cell("") if known else cell for cell, known in zip(row, same, strict=False)]
            yield (*lead, *row[self.names :])


def layout(table: ScoreTable) -> Layout:
    """A row for each model, with the change below where it has AIM, and the errors at the end."""
    leads = ("Experts", "Method", "AIM") if table.with_experts else ("Model", "AIM")
    numbers = ("n",) if table.repeated else ()
    blocks = [tuple(_row(table, entry) for entry in block) for block in table.blocks]
    errors = [table.error(column) for column in table.columns]
    if any(error is not None for error in errors):
        lead = [Cell("Standard error"), *[Cell("")] * (len(leads) - 1 + len(numbers))]
        values = [
            Cell(NOTHING if error is None else printed(column, error))
            for column, error in zip(table.columns, errors, strict=True)
        ]
        blocks.append(((*lead, *values),))
    return Layout(leads, (*numbers, *(_heading(column) for column in table.columns)), tuple(blocks))


def _heading(column: str) -> str:
    return "gain" if column == GAIN else column


def _row(table: ScoreTable, entry: Entry) -> Row:
    names = [entry.experts, entry.method] if table.with_experts else [entry.method or entry.experts]
    how = Cell(entry.aim, change="change" if entry.changes else "")
    count = [Cell(str(entry.n))] if table.repeated else []
    return (*map(Cell, names), how, *count, *(_score(entry, column) for column in table.columns))


def _score(entry: Entry, column: str) -> Cell:
    spread = entry.spreads.get(column)
    if spread is None:
        return Cell("" if entry.kind in ("member", "reference") else NOTHING)
    return Cell(
        printed(column, spread.mean),
        bold=column in entry.best,
        deviation="" if spread.deviation is None else printed(column, spread.deviation),
        change=_change(entry.changes.get(column)) if entry.changes else "",
    )


def _change(change: float | None) -> str:
    return NOTHING if change is None else f"{change:+.1f}%"
