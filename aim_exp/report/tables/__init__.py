"""Tables: one type (`table`), what is in them (`scores`, `differences`), and a renderer a file.

`tables/scores.*` in a report's directory are those for papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from aim_exp.report.baselines import PLAIN
from aim_exp.report.differences import Differences, Verdict
from aim_exp.report.files import write_text
from aim_exp.report.paper import AS_IT_IS, Paper
from aim_exp.report.rows import Report
from aim_exp.report.tables.csv import as_csv
from aim_exp.report.tables.latex import as_latex
from aim_exp.report.tables.markdown import as_markdown
from aim_exp.report.tables.scores import effect_table

FOLDER = "tables"


def write_tables(
    report: Report,
    directory: Path,
    paper: Paper = AS_IT_IS,
    differences: Sequence[Differences] = (),
) -> list[Path]:
    """`tables/scores.md`, `.tex` and `.csv` in `directory`; none where nothing was scored.

    `differences` say which changes against the plain merge hold.
    """
    groups = [g for g in report.groups if any(row.estimates for row in g.merges)]
    tables = [effect_table(report, group, paper, held(differences)) for group in groups]
    if not tables:
        return []
    shown = [table.named_once() for table in tables]
    texts = {
        "md": "".join(
            f"{t.title} {t.sentences}".strip() + f"\n\n{as_markdown(t)}\n\n" for t in shown
        ),
        "tex": as_latex(shown),
        "csv": as_csv(tables),
    }
    return [write_text(directory / FOLDER / f"scores.{kind}", text) for kind, text in texts.items()]


def held(differences: Sequence[Differences]) -> set[tuple[str, str]]:
    """Rows and quantities that differ from the plain merge beyond noise, in every draw."""
    against_plain = (each for each in differences if each.title == PLAIN.title)
    verdicts: dict[tuple[str, str], set[Verdict]] = {}
    for contrast in chain(*(each.contrasts for each in against_plain)):
        for quantity, difference in contrast.differences.items():
            verdicts.setdefault((contrast.row.key, quantity), set()).add(difference.verdict)
    return {key for key, every in verdicts.items() if every in ({Verdict.ABOVE}, {Verdict.BELOW})}
