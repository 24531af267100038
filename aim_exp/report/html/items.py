"""Side files of the page: what models were asked and answered, read when a reader wants it.

A page opened from disk may not fetch a file, but it may load a script: each file calls one function
with packed JSON, which no text can break out of.
"""

from __future__ import annotations

import base64
import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from aim_exp.errors import AimError
from aim_exp.report.answers import read_answers
from aim_exp.report.baselines import candidates
from aim_exp.report.draws import Draw
from aim_exp.report.files import write_text
from aim_exp.report.rows import Report
from aim_exp.report.tables.differences import MODEL
from aim_exp.store.stage_spec import content_key

FOLDER = "report_items"
KEY = 20
"""Digits of a file's name."""
Data = dict[str, Any]


def items_data(report: Report) -> Data | None:
    """Models and the names of their files, a benchmark each; None where no items are at hand."""
    models = [
        {
            "key": each.draw.identity[:MODEL],
            "label": each.label(report),
            "group": each.group.number - 1,
            "files": [files.get(name) for name in report.benchmarks],
        }
        for each in candidates(report)
        if (files := _names(each.draw))
    ]
    return {"folder": FOLDER, "models": models} if models else None


def write_items(report: Report, out: Path) -> None:
    """Write what is not there yet into `out/report_items`; a file's name is that of its content."""
    folder = out / FOLDER
    for each in candidates(report):
        for benchmark, name in _names(each.draw).items():
            if not (folder / f"{name}.js").exists():
                with suppress(AimError):
                    answers = read_answers(each.draw.sources[benchmark])
                    questions = list(map(vars, answers.questions))
                    key = content_key("questions", 1, questions)[:KEY]
                    _write(folder, key, questions)
                    _write(folder, name, {"questions": key, "given": [*map(vars, answers.given)]})


def _names(draw: Draw) -> dict[str, str]:
    return {
        name: content_key("answers", 2, source.evidence)[:KEY]
        for name, source in draw.sources.items()
        if source.is_there
    }


def _write(folder: Path, name: str, content: Any) -> None:
    if (folder / f"{name}.js").exists():
        return
    packed = gzip.compress(json.dumps(content, ensure_ascii=False).encode(), mtime=0)
    write_text(
        folder / f"{name}.js", f'answers("{name}", "{base64.b64encode(packed).decode()}");\n'
    )
