"""Tables: one type (`table`), what is in them (`scores`, `differences`), and a renderer a file.

`tables/scores.*` and `tables/chosen.*` in a report's directory are those for papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from aim_exp.report.baselines import PLAIN
from aim_exp.report.differences import Differences, Verdict
from aim_exp.report.files import write_text
from aim_exp.report.grouped import grouped
from aim_exp.report.paper import AS_IT_IS, Paper
from aim_exp.report.rows import Report
from aim_exp.report.tables.csv import as_csv
from aim_exp.report.tables.latex import as_latex
from aim_exp.report.tables.markdown import as_markdown
from aim_exp.report.tables.scores import choice_table, effect_table
from aim_exp.report.tables.table import Table

FOLDER = "tables"


def write_tables(
    report: Report,
    directory: Path,
    paper: Paper = AS_IT_IS,
    differences: Sequence[Differences] = (),
) -> list[Path]:
    """`scores.md`, `.tex` and `.csv` in `directory/tables`; none where nothing was scored.

    Where something was chosen, `chosen.md`, `.tex` and `.csv` too. `differences` say which changes
    against the plain merge hold.
    """
    groups = [g for g in report.groups if any(row.estimates for row in g.merges)]
    files = {"scores": [effect_table(report, g, paper, held(differences)) for g in groups]}
    if chosen := choice_table(report):
        files["chosen"] = [chosen.map_cells(lambda c: replace(c, text=paper.write(c.text)))]
    return [
        write_text(directory / FOLDER / f"{name}.{kind}", text)
        for name, tables in files.items()
        if tables
        for kind, text in _texts(name, tables).items()
    ]


def _texts(name: str, tables: Sequence[Table]) -> dict[str, str]:
    """By the ending of its file."""
    shown = [table.named_once() for table in tables]
    parts = [f"{t.title} {t.sentences}".strip() + f"\n\n{as_markdown(t)}\n\n" for t in shown]
    return {"md": "".join(parts), "tex": as_latex(shown, name), "csv": as_csv(tables)}


def held(differences: Sequence[Differences]) -> set[tuple[str, str]]:
    """Rows and quantities that differ from the plain merge beyond noise, in every draw."""
    against_plain = (each for each in differences if each.title == PLAIN.title)
    verdicts = grouped(
        ((contrast.merge.row.key, quantity), difference.verdict)
        for contrast in chain(*(each.contrasts for each in against_plain))
        for quantity, difference in contrast.differences.items()
    )
    return {k for k, every in verdicts.items() if {*every} in ({Verdict.ABOVE}, {Verdict.BELOW})}
