"""Side files of the page: what models were asked and answered, read when a reader wants it.

A page opened from disk may not fetch a file, but it may load a script: each file calls one function
with packed JSON, which no text can break out of.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aim_exp.errors import AimError
from aim_exp.report.answers import read_answers
from aim_exp.report.draws import Draw
from aim_exp.report.files import write_text
from aim_exp.report.rows import Group, Report, Row
from aim_exp.report.tables.differences import MODEL
from aim_exp.store.keys import content_key

FOLDER = "report_items"
KEY = 20
"""Digits of a file's name."""
Data = dict[str, Any]


def items_data(report: Report) -> Data | None:
    """Models and the names of their files, a benchmark each; None where no items are at hand."""
    models = [
        {
            "key": draw.identity[:MODEL],
            "label": _label(report, group, row, draw),
            "group": number,
            "files": [files.get(name) for name in report.benchmarks],
        }
        for number, group, row, draw in _draws(report)
        if (files := _names(draw))
    ]
    return {"folder": FOLDER, "models": models} if models else None


def write_items(report: Report, out: Path) -> None:
    """Write what is not there yet into `out/report_items`; a file's name is that of its content."""
    folder = out / FOLDER
    for _, _, _, draw in _draws(report):
        for benchmark, name in _names(draw).items():
            if not (folder / f"{name}.js").exists():
                try:
                    answers = read_answers(draw.sources[benchmark])
                except AimError:
                    continue
                content = asdict(answers)
                questions = content.pop("questions")
                asked = content_key("questions", 1, questions)[:KEY]
                if not (folder / f"{asked}.js").exists():
                    _write(folder, asked, questions)
                _write(folder, name, {"questions": asked, **content})


def _draws(report: Report) -> Iterator[tuple[int, Group, Row, Draw]]:
    for number, group in enumerate(report.groups):
        for row in group.rows:
            yield from ((number, group, row, draw) for draw in row.draws if draw.model.scores)


def _names(draw: Draw) -> dict[str, str]:
    """By benchmark."""
    return {
        name: content_key("answers", 1, source.evidence)[:KEY]
        for name, source in draw.sources.items()
        if source.is_there
    }


def _label(report: Report, group: Group, row: Row, draw: Draw) -> str:
    """The row's, with the seeds that are averaged over."""
    seeds = [f"{report.short(s)}={draw.seeds[s]}" for s in group.seeds if s in draw.seeds]
    return " ".join([row.label, *seeds])


def _write(folder: Path, name: str, content: Data) -> None:
    packed = gzip.compress(json.dumps(content, ensure_ascii=False).encode(), mtime=0)
    write_text(
        folder / f"{name}.js", f'answers("{name}", "{base64.b64encode(packed).decode()}");\n'
    )
