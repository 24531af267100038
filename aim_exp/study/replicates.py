"""Replicates of a locked study: their jobs are run, and what each item got is kept beside the lock.

`FOLDER/STUDY/3.csv.gz` has a line per model and item, `FOLDER/STUDY/3.json` what was run. Both are
small enough for a repository, and all that `aim_exp.study.findings` reads.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aim_exp.app import run_experiment
from aim_exp.errors import AimError
from aim_exp.report.files import write_atomically, write_text
from aim_exp.report.frames import item_score
from aim_exp.report.items import Source
from aim_exp.statistics import Floats
from aim_exp.store.provenance import machine_text
from aim_exp.store.run_record import MERGED, RunRecord, read_record
from aim_exp.store.study_lock import Job, StudyLock, config_digest, read_lock

RUNS = Path("outputs/studies")
"""Where the runs themselves are, by study and replicate."""
HEADER = ("model", "benchmark", "task", "item", "score", "nats", "bytes")
NATS = "gold_loglikelihood"
"""Metric of an item: how likely its gold answer is."""


@dataclass(frozen=True)
class Outcomes:
    """A model on a benchmark, all [items], in the order of `ids`; NaN where there is none.

    `score` is in [0, 1], `nats` the log-likelihood of the gold answer (of plain text, of all of
    it, which has `bytes`).
    """

    ids: tuple[str, ...]
    score: Floats
    nats: Floats
    bytes: Floats


@dataclass(frozen=True)
class Replicate:
    """What is kept of a replicate.

    `about` is its JSON file: `created`, `commit`, `machine`; `objectives`, the benchmarks that are
    averaged; and `jobs`, by name (`aim/0`), each with the digest of its configuration, its dose and
    its seconds. `outcomes` are by model (a job's name, `base`, an expert) and benchmark.
    """

    number: int
    about: Mapping[str, Any]
    outcomes: Mapping[str, Mapping[str, Outcomes]]


def job_name(arm: str, over: int) -> str:
    """Of a merge among a replicate's models."""
    return f"{arm}/{over}"


def run_replicate(lock: Path, number: int) -> Path:
    """Run a replicate that is not kept yet, and keep its items; the file of the items.

    Raises AimError at the first job that fails. The same command goes on where it was.
    """
    study, target = read_lock(lock), kept_folder(lock) / f"{number}.csv.gz"
    if target.exists():
        return target
    jobs = [job for job in study.jobs if job.replicate == number]
    if not jobs:
        numbers = ", ".join(map(str, (*study.development, *study.test)))
        raise AimError(f"{number}: is no replicate of {lock}, which has {numbers}")
    runs = {job_name(job.arm, job.over): _run(study, job) for job in jobs}
    rows = [row for name, (folder, record) in runs.items() for row in _rows(name, folder, record)]
    first = next(iter(runs.values()))[1]
    about = {
        "created": first.created,
        "commit": first.provenance["git_commit"],
        "machine": machine_text(first.provenance),
        "objectives": [name for name, each in first.benchmarks.items() if each.objective],
        "jobs": {name: _about(record) for name, (_, record) in runs.items()},
    }
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *dict.fromkeys(rows)])
    content = gzip.compress(text.getvalue().encode(), mtime=0)
    write_text(target.with_name(f"{number}.json"), json.dumps(about, indent=1) + "\n")
    return write_atomically(target, lambda partial: partial.write_bytes(content))


def kept_folder(lock: Path) -> Path:
    """Where what is kept of a study's replicates lies."""
    return lock.with_suffix("")


def kept_replicates(lock: Path) -> list[Replicate]:
    """Those that are there, by number."""
    paths = sorted(kept_folder(lock).glob("*.csv.gz"), key=lambda path: int(path.name[:-7]))
    return [_read(path, int(path.name[:-7])) for path in paths]


def _run(study: StudyLock, job: Job) -> tuple[Path, RunRecord]:
    name = job_name(job.arm, job.over)
    folder = RUNS / study.name / str(job.replicate) / name.replace("/", "_")
    try:
        record = read_record(folder)
    except AimError:
        record = None
    if not record or record.status != "completed" or config_digest(record.config) != job.config:
        record = run_experiment(*job.overrides, f"hydra.run.dir={folder}", "tracker=none")
    if record.status != "completed":
        raise AimError(f"replicate {job.replicate}, {name}: {record.error}")
    return folder, record


def _rows(name: str, folder: Path, record: RunRecord) -> Iterator[tuple[str, ...]]:
    for model in record.models:
        own = name if model.role == MERGED else model.name
        for benchmark, score in model.scores.items():
            for line, value in Source.of(score, folder).lines():
                nats, size = line["metrics"].get(NATS), ""
                points = item_score(value, score.ends)
                if isinstance(value, list):  # text: its likelihood and its bytes
                    (nats, size), points = value, None
                shown = "" if points is None else f"{points:g}"
                likelihood = "" if nats is None else f"{nats:.4f}"
                item = (line["task"], str(line["doc_id"]))
                yield own, benchmark, *item, shown, likelihood, str(size)


def _about(record: RunRecord) -> dict[str, Any]:
    dose = record.dose.get("all")
    return {
        "config": config_digest(record.config),
        "seconds": record.timings.get("total"),
        "dose": asdict(dose) if dose else None,
    }


def _read(path: Path, number: int) -> Replicate:
    columns: dict[str, dict[str, list[tuple[str, ...]]]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        for model, benchmark, task, *rest in list(csv.reader(text))[1:]:
            columns.setdefault(model, {}).setdefault(benchmark, []).append((task, *rest))
    outcomes = {
        model: {benchmark: _outcomes(rows) for benchmark, rows in own.items()}
        for model, own in columns.items()
    }
    about = json.loads(path.with_name(f"{number}.json").read_text(encoding="utf-8"))
    return Replicate(number, about, outcomes)


def _outcomes(rows: list[tuple[str, ...]]) -> Outcomes:
    ids = tuple(f"{task} {item}" for task, item, *_ in rows)
    numbers = np.array([[float(cell or "nan") for cell in row[2:]] for row in rows])
    return Outcomes(ids, *numbers.T)
