"""A table on a terminal, in the widest form that fits; plain where it is no terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from aim_exp.console import print_whole
from aim_exp.report.tables.table import Cell, Column, Row, Table, Tone

STYLES: dict[Tone, str] = {
    "": "", "good": "green", "bad": "red", "doubt": "yellow", "dim": "dim", "mark": "yellow",
    "member": "", "merged": "cyan",
}  # fmt: skip
SETTINGS = "settings"
MANY = 5
"""Columns left out that are not named."""
BARE = ("method", "run")
"""Headings of cells that need none."""


def print_table(console: Console, table: Table) -> None:
    """Its title, the first form of it that fits, and what explains it."""
    console.print()
    if table.title:
        console.print(Text(table.title, style="bold"), soft_wrap=True)
        console.print()
    shown, gap = _fitting(console, table)
    console.print(_grid(shown, gap))
    if shown.explained:
        console.print()
        console.print(Text("\n".join(shown.explained), style="dim"), soft_wrap=True)


def print_whole_table(console: Console, table: Table) -> None:
    """At the width that it needs, however narrow the terminal: nothing is cut."""
    print_whole(console, _grid(table, gap=2))
    console.print(Text("\n".join(["", *table.explained]), style="dim"), soft_wrap=True)


def fits(console: Console, table: Table) -> bool:
    """Whether all of it is as narrow as the terminal."""
    return _width(table, 1) <= console.width


def _fitting(console: Console, table: Table) -> tuple[Table, int]:
    """The first form that fits; the last one if none does: its text wraps."""
    forms = list(_forms(table))
    return next((form for form in forms if _width(*form) <= console.width), forms[-1])


def _width(table: Table, gap: int) -> int:
    """In characters, as `_grid` draws it with room enough."""
    columns = range(len(table.columns))
    widths = [
        max((cell_len(line) for line in _broken(table.columns[i].heading).splitlines()), default=0)
        for i in columns
    ]
    for i in columns:
        cells = list(table.column(i))
        detail = max((cell_len(cell.detail) + 1 for cell in cells if cell.detail), default=0)
        texts = (max(cell_len(cell.text) + detail, cell_len(cell.below)) for cell in cells)
        widths[i] = max(widths[i], *texts)
    return sum(widths) + gap * len(widths) - 1


def _forms(table: Table) -> Iterator[tuple[Table, int]]:
    """From wide to narrow, each with the blanks between its columns."""
    bare = _without_margins(table)
    for form in (table, bare):
        yield form, 2
        yield form, 1
    if table.lead == 1 and len(table.rows) < len(table.columns):
        yield _turned(table), 2
        yield _turned(bare), 1
    else:
        yield _essential(table), 2
        yield _folded(_essential(table)), 2


def _without_margins(table: Table) -> Table:
    """The largest of each column in a line at the end, in place of one in each cell."""
    margins = [max((c.margin for c in table.column(i) if c.margin is not None), default=None)
               for i in range(len(table.columns))]  # fmt: skip
    if not any(margins):
        return table

    def largest(number: int) -> Cell:
        of = (cell.detail for cell in table.column(number) if cell.margin == margins[number])
        return Cell("" if margins[number] is None else next(of).removeprefix("±"), tone="dim")

    def without(row: Row) -> Row:
        numbers = (replace(cell, detail="", margin=None) for cell in row.cells[table.lead :])
        return replace(row, cells=(*row.cells[: table.lead], *numbers))

    bare = table.map_rows(without)
    name = min(1, table.lead - 1)  # beside the column of jobs
    cells = [Cell("± up to", tone="dim") if i == name else largest(i) for i in range(len(margins))]
    last = Row(tuple(cells), competes=False)
    return replace(bare, sections=(*bare.sections, (last,)), detail="")


def _essential(table: Table) -> Table:
    """Without what may be left out, which it says."""
    left_out = [column.heading for column in table.columns if column.optional]
    if not left_out:
        return table
    kept = table.only([i for i, column in enumerate(table.columns) if not column.optional])
    names = ", ".join(left_out) if len(left_out) < MANY else "by benchmark"
    hint = f"{names}: in the files, or on a wider terminal"
    return replace(kept, legend=(*table.legend, hint))


def _turned(table: Table) -> Table:
    """Rows as columns: for many benchmarks."""
    names = [row.cells[0].text for row in table.rows]
    rows = [
        Row((Cell(column.heading), *table.column(number)))
        for number, column in enumerate(table.columns)
        if number
    ]
    columns = (Column(""), *(Column(name, numeric=True) for name in names))
    return replace(table, columns=columns, sections=(tuple(rows),))


def _folded(table: Table) -> Table:
    """The first column, then one for all others of text, which wraps."""
    lead, names = table.lead, [column.heading for column in table.columns]

    def folded(row: Row) -> Row:
        named = zip(names[1:lead], row.cells[1:lead], strict=True)
        words = (c.text if n in BARE else f"{n}={c.text}" for n, c in named if c.text)
        cells = (row.cells[0], Cell(" ".join(words)), *row.cells[lead:])
        return replace(row, cells=cells)

    columns = (table.columns[0], Column(SETTINGS), *table.columns[lead:])
    return replace(table.map_rows(folded), columns=columns)


def _grid(table: Table, gap: int) -> Grid:
    """A rule below the headings and between sections, `gap` blanks, and nothing else."""
    grid = Grid(
        box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), show_edge=False, header_style="dim"
    )
    numbers = range(len(table.columns))
    rooms = [max((len(c.detail) for c in table.column(i)), default=0) for i in numbers]
    for column in table.columns:
        side = "right" if column.numeric else "left"
        folds = column.heading == SETTINGS
        grid.add_column(_broken(column.heading), justify=side, no_wrap=not folds, overflow="fold")
    for section in table.sections:
        for row in section:
            grid.add_row(*(_text(cell, room) for cell, room in zip(row.cells, rooms, strict=True)))
        grid.add_section()
    return grid


def _broken(heading: str) -> str:
    """`tiny_humaneval` and `calibration.n_samples` in lines, after an underscore or a dot."""
    parts = re.findall(r"[^_.]+[_.]*|[_.]+", heading) or [""]
    room, lines = max(map(len, parts)), [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _text(cell: Cell, room: int) -> Text:
    """Bold where it is strong; its detail dim and aligned, what is below in a line of its own."""
    text = Text(cell.text, style=f"{STYLES[cell.tone]} {'bold' * cell.strong}".strip())
    if room:
        text.append(f" {cell.detail:<{room}}", style="not bold dim")
    if cell.below:
        text.append(f"\n{cell.below}", style="not bold dim")
    return text
