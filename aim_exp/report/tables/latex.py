"""The tables of a paper in LaTeX: floats as wide as the page, and as many as it takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from aim_exp.report.methods_paragraph import escape_latex
from aim_exp.report.tables import ScoreTable
from aim_exp.report.tables.layout import Cell, Layout, Row, layout

PAGE = 44
"""Lines that fit a page of most styles, below a caption."""
HEAD = r"""% Needs \usepackage{booktabs,graphicx,xcolor}; \input{scores} where the tables belong.
% A table that is too long for a page is several; one that is too wide is shrunk to the text.
\providecommand{\aimdeviation}[1]{{\scriptsize$\pm$#1}}
\providecommand{\aimchange}[1]{{\scriptsize\itshape\color{black!55}#1}}
"""
END, TIGHT, APART = r" \\", r" \\[-2pt]", r" \\[2pt]"
"""Of a line; before what belongs to it; after that."""


def as_latex(tables: Sequence[ScoreTable]) -> str:
    """Each table as a `table*`, or several where it does not fit a page, for `\\input`."""
    return HEAD + "\n".join(_latex(table, number) for number, table in enumerate(tables, 1))


def _latex(table: ScoreTable, number: int) -> str:
    shown = layout(table)
    headings = " & ".join(map(_typeset, (*shown.leads, *shown.headings)))
    columns = "l" * len(shown.leads) + "r" * len(shown.headings)
    first, *others = _pages(shown)
    title = rf"\caption{{{_typeset(table.caption)}}}\label{{tab:scores-{number}}}"
    more = r"\addtocounter{table}{-1}\caption[]{(continued)}"
    titled = [(title, first), *((more, page) for page in others)]
    return "\n".join(
        _float(columns, title, rf"{headings} \\", _latex_body(page, shown))
        for title, page in titled
    )


def _float(columns: str, title: str, headings: str, body: str) -> str:
    """As wide as the page, and no wider."""
    return rf"""\begin{{table*}}
\centering
\small
\setlength{{\belowcaptionskip}}{{6pt}}
{title}
\setlength{{\tabcolsep}}{{3pt}}
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


Merge = tuple[Row, ...]
"""Rows of the same names: without AIM, and with it in every way that was run."""


def _pages(shown: Layout) -> list[list[list[Merge]]]:
    """Blocks of merges for each page: what is broken is a merge only where it fills one alone."""
    pages: list[list[list[Merge]]] = [[[]]]
    filled = 0
    for block in shown.blocks:
        if pages[-1][-1]:
            pages[-1].append([])
        for merge in _merges(block, shown.names):
            if filled and filled + _height(merge) > PAGE:
                pages.append([[]])
                filled = 0
            pages[-1][-1].append(merge)
            filled += _height(merge)
    return [[block for block in page if block] for page in pages]


def _merges(block: Sequence[Row], names: int) -> Iterator[Merge]:
    """In pieces that fit a page."""
    for _, group in groupby(block, key=lambda row: row[:names]):
        piece: list[Row] = []
        for row in group:
            if piece and _height([*piece, row]) > PAGE:
                yield tuple(piece)
                piece = []
            piece.append(row)
        yield tuple(piece)


def _height(rows: Sequence[Row]) -> int:
    return sum(len(_lines(row)) for row in rows)


def _latex_body(page: Sequence[Sequence[Merge]], shown: Layout) -> str:
    """A rule between blocks, a space between merges of several rows."""
    return "\n\\midrule\n".join(_latex_block(block, shown) for block in page)


def _latex_block(block: Sequence[Merge], shown: Layout) -> str:
    rows = shown.named_once([row for merge in block for row in merge])
    texts = []
    for merge in block:
        texts.append("\n".join(_latex_row(next(rows)) for _ in merge))
        texts.append("\n\\addlinespace\n" if len(merge) > 1 else "\n")
    return "".join(texts[:-1])


def _latex_row(row: Row) -> str:
    lines = _lines(row)
    return (TIGHT + "\n").join(lines) + (APART if len(lines) > 1 else END)


def _lines(row: Row) -> list[str]:
    """The model's scores; below them the deviations and the changes, where it has any."""
    below = [
        [rf"\aimdeviation{{{cell.deviation}}}" if cell.deviation else "" for cell in row],
        [rf"\aimchange{{{_typeset(cell.change)}}}" if cell.change else "" for cell in row],
    ]
    return [_joined(map(_latex_cell, row)), *(_joined(line) for line in below if any(line))]


def _joined(cells: Iterable[str]) -> str:
    """The first text is no argument of the command before it, as `[` and `*` would be."""
    text = " & ".join(cells)
    return "{}" + text if text.startswith(("[", "*")) else text


def _latex_cell(cell: Cell) -> str:
    text = _typeset(cell.text)
    return rf"\textbf{{{text}}}" if cell.bold else text


def _typeset(text: str) -> str:
    """Literally, but for a number's minus and omega, which are set as in papers."""
    text = escape_latex(re.sub(r"^-(?=\d)", "−", text)).replace("−", "$-$")
    return re.sub(r"\bomega(?= ?=)", r"$\\omega$", text)
