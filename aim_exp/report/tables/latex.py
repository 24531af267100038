r"""Tables in LaTeX: floats as wide as the page; what is longer than a page is a `longtable`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from aim_exp.report.tables.table import STAR, Cell, Row, Table

PAGE = 44
"""Lines that fit a page of most styles, below a caption."""
HEAD = r"""% Needs \usepackage{booktabs,graphicx,longtable,xcolor}; \input{scores} where it belongs.
% A table that is too wide is shrunk to the text. One that is too long for a page is a longtable,
% which a style of two columns takes after \onecolumn only.
\providecommand{\aimdetail}[1]{{\scriptsize#1}}
\providecommand{\aimbelow}[1]{{\scriptsize\itshape\color{black!55}#1}}
"""
ESCAPED = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--", "−": "$-$", "×": r"$\times$", STAR: r"$\star$", "†": r"\dag{}",
}  # fmt: skip
GREEK = dict(zip(
    "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ",
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split(),
    strict=True,
))  # fmt: skip
ESCAPED |= {letter: rf"$\{name}$" for letter, name in GREEK.items()}


def escape_latex(text: str) -> str:
    """`text` as LaTeX typesets it literally."""
    return "".join(ESCAPED.get(character, character) for character in text)


def as_latex(tables: Sequence[Table], name: str = "scores") -> str:
    r"""Each table with its title, unit and legend as the caption, for `\input{name}`."""
    every = (_latex(table, f"{name}-{number}") for number, table in enumerate(tables, 1))
    return HEAD + "\n".join(every)


def _latex(table: Table, label: str) -> str:
    caption = _typeset(f"{table.title}. {table.sentences}" if table.title else table.sentences)
    caption = rf"\caption{{{caption}}}\label{{tab:{label}}}"
    columns = "".join("r" if column.numeric else "l" for column in table.columns)
    headings = _joined(_typeset(column.heading) for column in table.columns)
    body = "\n\\midrule\n".join("\n".join(_rows(section)) for section in table.sections)
    lines = sum(1 + any(cell.below for cell in row.cells) for row in table.rows)
    form = _LONG if lines > PAGE else _FLOAT
    filled = {"CAPTION": caption, "COLUMNS": columns, "HEADINGS": headings, "BODY": body}
    return re.sub("CAPTION|COLUMNS|HEADINGS|BODY", lambda word: filled[word[0]], form)


_FLOAT = r"""\begin{table*}
\centering\small\setlength{\tabcolsep}{3pt}\setlength{\belowcaptionskip}{6pt}
CAPTION
\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%
\begin{tabular}{COLUMNS}
\toprule
HEADINGS \\
\midrule
BODY
\bottomrule
\end{tabular}}
\end{table*}
"""
_LONG = r"""{\small\setlength{\tabcolsep}{3pt}
\begin{longtable}{COLUMNS}
CAPTION \\
\toprule
HEADINGS \\
\midrule
\endhead
\bottomrule
\endfoot
BODY
\end{longtable}}
"""


def _rows(section: Sequence[Row]) -> Iterator[str]:
    """What stands below a row is tied to it; a space follows the last row of a name."""
    for row in section:
        below = [rf"\aimbelow{{{_typeset(c.below)}}}" if c.below else "" for c in row.cells]
        if any(below):
            yield f"{_joined(map(_cell, row.cells))} \\\\*[-2pt]"
            yield f"{_joined(below)} \\\\[2pt]"
        else:
            yield f"{_joined(map(_cell, row.cells))} \\\\"


def _joined(cells: Iterable[str]) -> str:
    """The first text is no argument of the command before it, as `[` and `*` would be."""
    text = " & ".join(cells)
    return "{}" + text if text.startswith(("[", "*")) else text


def _cell(cell: Cell) -> str:
    text = _typeset(cell.text)
    text = rf"\textbf{{{text}}}" if cell.strong else text
    return rf"{text} \aimdetail{{{_typeset(cell.detail)}}}" if cell.detail else text


def _typeset(text: str) -> str:
    """Literally, but for a number's minus and omega, which are set as in papers."""
    text = escape_latex(re.sub(r"^-(?=\d)", "−", text))
    return re.sub(r"\bomega(?= ?=)", r"$\\omega$", text)
