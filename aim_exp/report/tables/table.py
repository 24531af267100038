"""The one table of all reports. What is in it is computed elsewhere; its renderers only draw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from aim_exp.report.units import Unit

NOTHING = "–"
"""Where a cell has no value."""
STAR = "★"

Tone = Literal["", "good", "bad", "doubt", "dim", "mark", "member", "merged"]
"""What a text is, which renderers with colours give one."""


@dataclass(frozen=True)
class Cell:
    """A text, and what belongs to it."""

    text: str = ""
    detail: str = ""
    """What follows it, smaller: `±4.1`, or an interval."""
    below: str = ""
    """A line of its own below: a change in percent."""
    strong: bool = False
    """The best of its column, or a claim that holds."""
    tone: Tone = ""
    value: float | None = None
    """The number that is written, without factor and rounding."""
    margin: float | None = None
    """That of `detail`, where it is `±`."""
    about: str = ""
    """More, for whoever asks: a pointer that rests on it."""
    link: str = ""
    """An anchor on the page that its text leads to."""

    @staticmethod
    def number(unit: Unit, value: float | None, margin: float | None = None) -> Cell:
        """`47.3 ±4.1`; a dash where it is unknown."""
        if value is None:
            return Cell(NOTHING, tone="dim")
        return Cell(unit.write(value), unit.margin(margin), value=value, margin=margin)


@dataclass(frozen=True)
class Column:
    """What its cells have in common."""

    heading: str
    numeric: bool = False
    """To the right; else text, to the left."""
    optional: bool = False
    """May be left out where room is short; then the files have it."""
    about: str = ""
    """What the heading stands for."""


@dataclass(frozen=True)
class Row:
    """A line: cells, one for each column."""

    cells: tuple[Cell, ...]
    competes: bool = True
    """Whether it may be the best of a column."""
    key: str = ""
    """Of the row of results that it shows: the page filters and marks it by that."""


@dataclass(frozen=True)
class Table:
    """Columns, those of text first, and rows in sections with a rule between them."""

    columns: tuple[Column, ...]
    sections: tuple[tuple[Row, ...], ...]
    title: str = ""
    unit: str = ""
    """What the numbers are."""
    margin: str = ""
    """What follows ±."""
    detail: str = ""
    """What stands beside a cell that is no margin: a sentence, gone where there is no room."""
    legend: tuple[str, ...] = ()
    """Sentences that explain it, without a stop."""

    @property
    def explained(self) -> tuple[str, ...]:
        """All that explains it: `percent ± standard error`, then the legend."""
        unit = f"{self.unit} ± {self.margin}" if self.margin else self.unit
        return tuple(filter(None, (unit, *self.legend, self.detail)))

    @property
    def sentences(self) -> str:
        return " ".join(f"{text[0].upper()}{text[1:]}." for text in self.explained)

    @property
    def rows(self) -> list[Row]:
        return [row for section in self.sections for row in section]

    @property
    def lead(self) -> int:
        """How many columns name a row: those before the star and the numbers."""
        others = (i for i, c in enumerate(self.columns) if c.numeric or c.heading == STAR)
        return next(others, len(self.columns))

    def column(self, number: int) -> Iterator[Cell]:
        """The cells of a column."""
        return (row.cells[number] for row in self.rows)

    def with_best(self) -> Table:
        """With the greatest of every column of numbers strong; equal as written is equal."""

        rivals = [row.cells for row in self.rows if row.competes]
        best = [
            max(
                (float(cells[i].text) for cells in rivals if cells[i].value is not None),
                default=None,
            )
            if column.numeric
            else None
            for i, column in enumerate(self.columns)
        ]

        def marked(row: Row) -> Row:
            cells = (
                replace(c, strong=row.competes and c.value is not None and float(c.text) == most)
                if most is not None
                else c
                for c, most in zip(row.cells, best, strict=True)
            )
            return replace(row, cells=tuple(cells))

        return self.map_rows(marked)

    def named_once(self) -> Table:
        """Without what names a row, but for the last of it, where the row above has it too."""
        names, sections = max(self.lead - 1, 1), []
        for section in self.sections:
            above, rows = ("",) * names, []
            for row in section:
                texts = tuple(cell.text for cell in row.cells[:names])
                blank = [texts[: i + 1] == above[: i + 1] for i in range(names)]
                lead = (Cell() if b else c for b, c in zip(blank, row.cells, strict=False))
                rows.append(replace(row, cells=(*lead, *row.cells[names:])))
                above = texts
            sections.append(tuple(rows))
        return replace(self, sections=tuple(sections))

    def map_rows(self, change: Callable[[Row], Row]) -> Table:
        """The same with every row changed."""
        sections = (tuple(map(change, section)) for section in self.sections)
        return replace(self, sections=tuple(sections))

    def map_cells(self, change: Callable[[Cell], Cell]) -> Table:
        """The same with every cell changed."""
        return self.map_rows(lambda row: replace(row, cells=tuple(map(change, row.cells))))
