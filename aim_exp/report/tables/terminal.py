"""A table on a terminal, in the widest form that fits; plain where it is no terminal."""

from __future__ import annotations

import re
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from aim_exp.console import natural_width, print_whole
from aim_exp.report.tables.table import Cell, Column, Row, Table, Tone

STYLES: dict[Tone, str] = {
    "": "", "good": "green", "bad": "red", "doubt": "yellow", "dim": "dim", "mark": "yellow",
    "member": "", "merged": "cyan",
}  # fmt: skip
MANY = 5
"""Columns left out that are not named."""


def print_table(console: Console, table: Table) -> None:
    """Its title, the first form of it that fits, and what explains it."""
    console.print()
    if table.title:
        console.print(Text(table.title, style="bold"), soft_wrap=True)
        console.print()
    forms = [(table, 2), (table, 1)]
    if table.lead == 1 and len(table.rows) < len(table.columns):
        forms += [(_turned(table), 2)]
    else:
        bare = _without_margins(table)
        forms += [(bare, 2), (bare, 1), (_essential(table), 2)]
    shown, gap = next((form for form in forms if _fits(console, *form)), forms[-1])
    console.print(_grid(shown, gap))
    if shown.explained:
        console.print()
        console.print(Text("\n".join(shown.explained), style="dim"), soft_wrap=True)


def print_whole_table(console: Console, table: Table) -> None:
    """At the width that it needs, however narrow the terminal: nothing is cut."""
    print_whole(console, _grid(table, gap=2))
    console.print(Text("\n".join(["", *table.explained]), style="dim"), soft_wrap=True)


def fits(console: Console, table: Table) -> bool:
    """Whether all of it is as narrow as the terminal, at the least."""
    return _fits(console, table, 1)


def _fits(console: Console, table: Table, gap: int) -> bool:
    return natural_width(console, _grid(table, gap)) <= console.width


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
    """Without what may be left out, which it says, and without what explains only that."""
    left_out = [column.heading for column in table.columns if column.optional]
    if not left_out:
        return table
    places = [i for i, column in enumerate(table.columns) if not column.optional]
    kept = table.map_rows(lambda row: replace(row, cells=tuple(row.cells[i] for i in places)))
    names = ", ".join(left_out) if len(left_out) < MANY else "by benchmark"
    hint = f"{names}: in the files, or on a wider terminal"
    kept = replace(kept, columns=tuple(table.columns[i] for i in places))
    before, after = _words(table), _words(kept)
    marks = {sentence: sentence.partition(":")[0] for sentence in table.legend}
    legend = (each for each, mark in marks.items() if mark in after or mark not in before)
    return replace(kept, legend=(*legend, hint))


def _words(table: Table) -> str:
    cells = (cell.text for row in table.rows for cell in row.cells)
    return " ".join([*(column.heading for column in table.columns), *cells])


def _turned(table: Table) -> Table:
    """Rows as columns: for many benchmarks."""
    names = (row.cells[0].text for row in table.rows)
    columns = (Column(""), *(Column(name, numeric=True) for name in names))
    rows = (
        Row((Cell(column.heading), *table.column(number)))
        for number, column in enumerate(table.columns)
        if number
    )
    return replace(table, columns=columns, sections=(tuple(rows),))


def _grid(table: Table, gap: int) -> Grid:
    """A rule below the headings and between sections, `gap` blanks, and nothing else."""
    grid = Grid(
        box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), show_edge=False, header_style="dim"
    )
    numbers = range(len(table.columns))
    rooms = [max((len(c.detail) for c in table.column(i)), default=0) for i in numbers]
    for column in table.columns:
        side = "right" if column.numeric else "left"
        heading = _broken(column.heading)
        grid.add_column(heading, justify=side, no_wrap=column.numeric, overflow="fold")
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
