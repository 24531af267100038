"""`results.csv`: a row per job, raw numbers, for whatever the report does not show."""

from __future__ import annotations

import csv
from pathlib import Path

from aim_exp.report.files import write_atomically
from aim_exp.report.models import merge_metrics
from aim_exp.report.results import Job, Results

NAMED = ("method", "omega", "seed", "experts")
"""Settings that every row has, whether they vary or not."""


def write_table(results: Results, path: Path) -> Path:
    """Write one row per job; empty cells where there is nothing to say."""
    rows = job_rows(results)

    def write(partial: Path) -> None:
        with partial.open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=list(rows[0]))
            table.writeheader()
            table.writerows(rows)

    return write_atomically(path, write)


def job_rows(results: Results) -> list[dict[str, object]]:
    """A row per job, all with the same keys; settings as text, None where nothing is known."""
    others = [name for name in results.varying if name not in NAMED]
    return [_row(results, job, others) for job in results.jobs]


def _row(results: Results, job: Job, others: list[str]) -> dict[str, object]:
    record = job.record
    row: dict[str, object] = {"job": job.folder, "status": record.status, "error": record.error}
    row |= {name: job.settings.get(name) for name in (*NAMED, *others)}
    for benchmark in results.benchmarks:
        row[benchmark] = (record.scores or {}).get(benchmark)
        row[f"{benchmark}_stderr"] = (record.stderr or {}).get(benchmark)
    average = job.merged.average if job.merged else None
    metrics = merge_metrics(record)
    return row | {
        "average": metrics.pop("average"),
        "average_stderr": average.stderr if average else None,
        **metrics,
        "on_joint_front": results.on_front(job) if job.merged else None,
        "seconds": job.seconds,
    }
