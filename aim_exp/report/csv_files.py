"""`results.csv`, `scores.csv`, `differences.csv`, `replicates.csv`: raw numbers, for all else.

What there is nothing to say of is an empty cell; a null setting is `none`. A text that pandas would
read as missing stands in quotes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from aim_exp.report.differences import Differences
from aim_exp.report.files import write_text
from aim_exp.report.frames import COLUMNS, Line, merge_settings, score_lines
from aim_exp.report.load import Job
from aim_exp.report.replicates import NOTHING_FIXED, Claim, over_replicates
from aim_exp.report.rows import AVERAGE, Report
from aim_exp.report.settings import different
from aim_exp.report.tables.csv import csv_text

FIRST = ("method", "omega", "relaxed", "seed")
"""Settings that every row of `results.csv` has; of the others, those that vary."""
DIFFERENCE_COLUMNS = (
    "model", "against", "quantity", "difference", "low", "high", "p", "p_adjusted", "verdict",
)  # fmt: skip


def write_csvs(
    report: Report, differences: Sequence[Differences], out: Path, claim: Claim = NOTHING_FIXED
) -> None:
    """Write them into `out`; `replicates.csv` where something was drawn several times."""
    columns, rows = result_rows(report)
    settings = _varying(report)
    write_text(out / "results.csv", csv_text(columns, rows))
    lines = (line for _, score, line in score_lines(report.runs) if score)
    write_text(out / "scores.csv", csv_text((*COLUMNS, *settings), lines))
    write_text(out / "differences.csv", csv_text(DIFFERENCE_COLUMNS, difference_rows(differences)))
    if rows := replicate_rows(differences, claim):
        write_text(out / "replicates.csv", csv_text(rows[0], rows))


def result_rows(report: Report) -> tuple[list[str], list[Line]]:
    """Columns, and a row per job asked for."""
    others = _varying(report)
    rows = [_row(report, job, others) for job in report.runs.jobs]
    return list(dict.fromkeys(name for row in rows for name in row)), rows


def difference_rows(differences: Iterable[Differences]) -> list[Line]:
    """A row per merge, baseline and quantity; scores and gains of [0, 1]."""
    return [
        {
            "model": contrast.label,
            "against": contrast.against,
            "quantity": quantity,
            "difference": difference.value,
            "low": difference.test and difference.test.low,
            "high": difference.test and difference.test.high,
            "p": difference.test and difference.test.p,
            "p_adjusted": difference.adjusted_p,
            "verdict": str(difference.verdict),
        }
        for compared in differences
        for contrast in compared.contrasts
        for quantity, difference in contrast.differences.items()
    ]


def replicate_rows(differences: Iterable[Differences], claim: Claim) -> list[Line]:
    """A row per merge, baseline and quantity, over replicates; in `values` one of each."""
    return [
        {
            "model": each.label, "against": each.against, "quantity": quantity,
            "difference": test.difference, "low": test.low, "high": test.high, "p": test.p,
            "n": test.n, "of": each.n, "test": str(test.design), "deviation": test.deviation,
            "values": " ".join(map(str, test.values)),
            "p_adjusted": each.adjusted_p if quantity == AVERAGE else None,
            "verdict": str(each.verdict) if quantity == AVERAGE else None,
            "margin": claim.margin, "role": each.role and str(each.role),
        }
        for compared in differences
        for each in over_replicates(compared, claim)
        for quantity, test in each.tests.items()
    ]  # fmt: skip


def _row(report: Report, job: Job, others: Sequence[str]) -> Line:
    record = job.record
    nulls = {"omega": 1.0}
    settings = merge_settings(job) or {
        name: nulls.get(name, "none") if value == "null" else value
        for name, value in job.asked_for.items()
    }
    standing = record.standing if record else None
    merged = record.merged if record else None
    scores = merged.scores if merged else {}
    row: Line = {"sweep": job.sweep, "job": job.name, "directory": job.folder}
    row |= {"status": job.status, "error": record and record.error}
    row |= {name: settings.get(name) for name in (*FIRST, *others)}
    for benchmark in report.benchmarks:
        score = scores.get(benchmark)
        row[benchmark], row[f"{benchmark}_stderr"] = score and score.value, score and score.stderr
    place = report.places.get(job)
    estimate = place[1].estimates.get(AVERAGE) if place else None
    on_front = standing and standing.on_front
    return row | {
        "average": standing and standing.average,
        "average_stderr": estimate and scores and estimate.stderr,
        "normalised_average": standing and standing.normalised_average,
        "gain_over_best_member": standing and standing.gain_over_best_member,
        "hypervolume": standing and standing.hypervolume,
        "hypervolume_gain": standing and standing.hypervolume_gain,
        "hypervolume_gain_population": standing and standing.hypervolume_gain_population,
        "on_front": None if on_front is None or not scores else "merged" in on_front,
        "on_joint_front": place[1].on_front if place and scores else None,
        "chosen": place[1].key in report.choices.keys if place and scores else None,
        "seconds": job.seconds,
    }


def _varying(report: Report) -> list[str]:
    """Every setting with two values among the jobs that have a record, whatever it does."""
    values = different(job.settings for job in report.runs.jobs)
    return [name for name, several in values.items() if len(several) > 1 and name not in FIRST]
