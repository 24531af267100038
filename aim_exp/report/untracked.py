"""Jobs whose plain merge had not been scored when they ended: their difference to it, later.

A job that was tracked without it leaves a note of its run; when the sweep is over, and its plain
merge is there, the run is tracked once more, as that of a job that is run again: a tracker
continues or replaces it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from aim_exp import tracking
from aim_exp.build import build_tracker
from aim_exp.records import RunRecord, find_records
from aim_exp.report.files import write_atomically
from aim_exp.report.tracked import job_outcome, lacks_twin
from aim_exp.tracking import Outcome, RunInfo

FILE_NAME = "untracked.json"


@dataclass(frozen=True, kw_only=True)
class Untracked:
    """A job's run as it began, and the files that its outcome holds."""

    run: RunInfo
    figure: Path | None
    model: Path | None


def note_untracked(job: Untracked, record: RunRecord, outcome: Outcome) -> None:
    """Leave a note in the job's directory, if `outcome` lacks what may be known later.

    A note that an earlier attempt left there goes.
    """
    note = job.run.directory / FILE_NAME
    if lacks_twin(record, outcome):
        text = json.dumps(asdict(job), default=str)
        write_atomically(note, lambda partial: partial.write_text(text))
    else:
        note.unlink(missing_ok=True)


def track_untracked(sweep: Path) -> None:
    """Complete the runs that can be completed now, each by the tracker that its job had."""
    for run, outcome in _take(sweep):
        settings = OmegaConf.create(dict(run.config["settings"]))
        if tracker := build_tracker(settings):
            tracking.start(tracker, run)
            tracking.finish(tracker, outcome)


def _take(sweep: Path) -> Iterator[tuple[RunInfo, Outcome]]:
    """Those runs, with their outcomes; the notes, of others too, are gone afterwards.

    So is that of a job that failed when it was run again: what it tracked then is the last word.
    Of processes that end at once, the one that removes a note has it.
    """
    records = find_records(sweep)
    for directory, record in records:
        job = _taken(directory / FILE_NAME)
        if job and record.status == "completed":
            outcome = job_outcome(
                record, directory, sweep=records, figure=job.figure, model=job.model
            )
            if not lacks_twin(record, outcome):
                yield job.run, outcome


def _taken(note: Path) -> Untracked | None:
    """What the note says, which is gone then; None if there was none."""
    try:
        content: dict[str, Any] = json.loads(note.read_text())
        note.unlink()
    except FileNotFoundError:
        return None
    run = content["run"]
    run |= {"directory": Path(run["directory"]), "tags": tuple(run["tags"])}
    figure, model = (Path(path) if (path := content[key]) else None for key in ("figure", "model"))
    return Untracked(run=RunInfo(**run), figure=figure, model=model)
