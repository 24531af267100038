"""The tables of a paper, written: Markdown to read, LaTeX to include, CSV to compute with."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from aim_exp.report.files import write_atomically
from aim_exp.report.markdown import markdown_table
from aim_exp.report.methods_paragraph import escape_latex
from aim_exp.report.repeats import GAIN
from aim_exp.report.results import Results
from aim_exp.report.summary import printed
from aim_exp.report.tables import Entry, ScoreTable, score_tables

FOLDER = "tables"
NAME = "scores"
NOTHING = "–"
PAGE = 40
"""Rows that fit a page of most styles, below a caption."""
HEAD = r"""% Needs \usepackage{booktabs,graphicx,longtable}; \input{scores} where the tables belong.
% What is too long for a page is a longtable; in a document of two columns it begins a new page.
"""


@dataclass(frozen=True)
class Cell:
    """A text of a table, and how it is set."""

    text: str
    bold: bool = False
    small: bool = False


@dataclass(frozen=True)
class Layout:
    """A table as rows of texts: `leads` are the headings of columns of text."""

    leads: tuple[str, ...]
    headings: tuple[str, ...]
    blocks: tuple[tuple[tuple[Cell, ...], ...], ...]


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


def as_latex(tables: Sequence[ScoreTable]) -> str:
    """Each table as a `table*`, or where it does not fit a page as a longtable, for `\\input`."""
    return HEAD + "\n".join(_latex(table, number) for number, table in enumerate(tables, 1))


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


def layout(table: ScoreTable) -> Layout:
    """Rows of texts: each model's, the change below a run with AIM, the errors at the end."""
    leads = ("Experts", "Method", "AIM") if table.with_experts else ("Model", "AIM")
    numbers = ("n",) if table.repeated else ()
    blocks = [tuple(_rows(table, block)) for block in table.blocks]
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


def _rows(table: ScoreTable, block: Sequence[Entry]) -> Iterator[tuple[Cell, ...]]:
    named: tuple[str, str] | None = None
    for entry in block:
        name = (entry.experts, entry.method)
        lead = [
            "" if named and entry.experts == named[0] else entry.experts,
            "" if name == named else entry.method,
        ]
        if not table.with_experts:
            lead = [entry.experts if not entry.method else lead[1]]
        named = name
        count = [Cell(str(entry.n))] if table.repeated else []
        scores = [_score(entry, column) for column in table.columns]
        yield (*map(Cell, (*lead, entry.aim)), *count, *scores)
        if entry.changes:
            blank = [Cell("")] * (len(lead) + len(count))
            changes = [_change(entry.changes.get(column)) for column in table.columns]
            yield (*blank[: len(lead)], Cell("change", small=True), *blank[len(lead) :], *changes)


def _score(entry: Entry, column: str) -> Cell:
    spread = entry.spreads.get(column)
    if spread is None:
        return Cell("" if entry.kind in ("member", "reference") else NOTHING)
    text = printed(column, spread.mean)
    if spread.deviation is not None:
        text += f" ± {printed(column, spread.deviation)}"
    return Cell(text, bold=column in entry.best)


def _change(change: float | None) -> Cell:
    return Cell(NOTHING if change is None else f"{change:+.1f}%", small=True)


def _markdown(table: ScoreTable) -> str:
    shown = layout(table)
    rows = [[_markdown_cell(cell) for cell in row] for block in shown.blocks for row in block]
    headings = [*shown.leads, *shown.headings]
    return f"{table.caption}\n\n{markdown_table(headings, rows, len(shown.leads))}"


def _markdown_cell(cell: Cell) -> str:
    if cell.bold:
        return f"**{cell.text}**"
    return f"*{cell.text}*" if cell.small else cell.text


def _latex(table: ScoreTable, number: int) -> str:
    shown = layout(table)
    headings = " & ".join(map(_typeset, (*shown.leads, *shown.headings)))
    columns = "l" * len(shown.leads) + "r" * len(shown.headings)
    title = rf"\caption{{{_typeset(table.caption)}}}", rf"\label{{tab:scores-{number}}}"
    long = sum(map(len, shown.blocks)) > PAGE
    blocks = [_latex_block(block, shown, long=long) for block in shown.blocks]
    if long:
        return _long_table(
            columns, title, rf"{headings} \\", "\n\\addlinespace[8pt]\n".join(blocks)
        )
    return _float(columns, title, rf"{headings} \\", "\n\\midrule\n".join(blocks))


def _float(columns: str, title: tuple[str, str], headings: str, body: str) -> str:
    """As wide as the page, and no wider."""
    return rf"""\begin{{table*}}
\centering
\small
\setlength{{\belowcaptionskip}}{{6pt}}
{title[0]}
{title[1]}
\setlength{{\tabcolsep}}{{4pt}}
\resizebox{{\ifdim\width>\textwidth\textwidth\else\width\fi}}{{!}}{{%
\begin{{tabular}}{{{columns}}}
\toprule
{headings}
\midrule
{body}
\bottomrule
\end{{tabular}}}}
\end{{table*}}
"""


def _long_table(columns: str, title: tuple[str, str], headings: str, body: str) -> str:
    """Over several pages, in one column, for longtable knows no other; centred if too wide."""
    count = len(columns)
    return rf"""\makeatletter
\if@twocolumn\onecolumn\let\aftertable\twocolumn\else\let\aftertable\relax\fi
\makeatother
\begingroup
\footnotesize
\setlength{{\tabcolsep}}{{3pt}}
\setlength{{\LTcapwidth}}{{\textwidth}}
\setlength{{\LTleft}}{{0pt plus 1fill minus 1fill}}
\setlength{{\LTright}}{{\LTleft}}
\begin{{longtable}}{{{columns}}}
{title[0]}{title[1]} \\
\toprule
{headings}
\midrule
\endfirsthead
\multicolumn{{{count}}}{{l}}{{\tablename~\thetable, continued}} \\
\toprule
{headings}
\midrule
\endhead
\bottomrule
\endfoot
{body}
\end{{longtable}}
\endgroup
\aftertable
"""


def _latex_block(block: Sequence[Sequence[Cell]], shown: Layout, *, long: bool) -> str:
    """Rows; in a long table, pages break between merges, and between blocks where they are short.

    A starred end of a row forbids it after that row.
    """
    names = max(1, len(shown.leads) - 1)
    ends = []
    for _, after in pairwise(block):
        begins = any(cell.text for cell in after[:names])
        ends.append(r" \\" if not long or (begins and len(block) > PAGE // 2) else r" \\*")
    rows = zip(block, (*ends, r" \\"), strict=True)
    return "\n".join(_latex_row(row) + end for row, end in rows)


def _latex_row(row: Sequence[Cell]) -> str:
    """Its first text is no argument of the command before it, as `[` and `*` would be."""
    text = " & ".join(map(_latex_cell, row))
    return "{}" + text if text.startswith(("[", "*")) else text


def _latex_cell(cell: Cell) -> str:
    text = _typeset(cell.text)
    if cell.bold:
        return rf"\textbf{{{text}}}"
    return rf"{{\scriptsize {text}}}" if cell.small else text


def _typeset(text: str) -> str:
    """Literally, but for a number's minus, a deviation and omega, which are set as in papers."""
    text = escape_latex(re.sub(r"^-(?=\d)", "−", text)).replace("−", "$-$")
    text = re.sub(r"(?<=\d) \$\\pm\$ ([\d.]+)", r"\\,{\\scriptsize$\\pm$\\,\1}", text)
    return re.sub(r"\bomega(?= ?=)", r"$\\omega$", text)


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
