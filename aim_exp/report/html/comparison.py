"""The comparison of runs with their twins as the page shows it: the form of the paper's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aim_exp.report.board import NOTHING
from aim_exp.report.compare import comparison as compared
from aim_exp.report.compare.comparison import AVERAGE, Comparison, Difference, Verdict
from aim_exp.report.compare.paired import GAIN
from aim_exp.report.html.tables import Cell, Row, anchor, filtered
from aim_exp.report.models import Estimate
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import label
from aim_exp.report.summary import gain_text, p_text, percent
from aim_exp.statistics import LEVEL

HELD = (Verdict.ABOVE, Verdict.BELOW)


@dataclass(frozen=True)
class TwinGroup:
    """A twin and the runs that are compared with it: a block of the paper's tables."""

    twin: Row
    rows: tuple[Row, ...]


def twin_groups(results: Results, comparison: Comparison) -> list[TwinGroup]:
    """A block per twin, in the order of the comparison."""
    blocks: dict[Path, list[compared.Row]] = {}
    for row in comparison.rows:
        blocks.setdefault(row.twin.directory, []).append(row)
    return [
        TwinGroup(
            twin=_run_row(results, comparison, rows[0].twin, {}),
            rows=tuple(
                _run_row(results, comparison, row.job, _differences(row), row.twin) for row in rows
            ),
        )
        for rows in blocks.values()
    ]


def sentences(comparison: Comparison) -> list[str]:
    """Every comparison in words, and what was not compared."""
    return [*map(comparison.sentence, comparison.rows), *comparison.omissions()]


def _differences(row: compared.Row) -> dict[str, Difference]:
    gain = {GAIN: row.gain} if row.gain else {}
    return {AVERAGE: row.average, **gain, **row.scores}


def _run_row(
    results: Results,
    comparison: Comparison,
    job: Job,
    differences: Mapping[str, Difference],
    twin: Job | None = None,
) -> Row:
    """A run's values, and how each differs from its twin's."""
    values, before = _values(job), _values(twin) if twin else {}
    return Row(
        lead=(Cell(label(job.settings, comparison.settings)),),
        cells=tuple(
            _compared(name, values.get(name), before.get(name), differences.get(name))
            for name in (AVERAGE, GAIN, *results.benchmarks)
        ),
        method=job.record.method,
        filtered=filtered(results, job),
        run=anchor(results, job),
    )


def _values(job: Job) -> dict[str, float]:
    """By quantity; what was not scored has none."""
    model, gain = job.merged, job.record.hypervolume_gain
    assert model is not None, "twins are scored"
    assert model.average is not None, "a scored model has a benchmark"
    scores = {name: score.value for name, score in model.scores.items()}
    return {AVERAGE: model.average.value, **({} if gain is None else {GAIN: gain}), **scores}


def _compared(
    name: str, value: float | None, before: float | None, difference: Difference | None
) -> Cell:
    """As in the paper: the value, and the difference in percent of the twin's."""
    if value is None:
        return Cell(NOTHING)
    text = gain_text(value) if name == GAIN else percent(Estimate(value))
    if difference is None or not before:  # nothing is a percentage of zero
        return Cell(text)
    change = f"{100 * difference.value / before:+.1f}"
    flat = change.strip("+-") == "0.0"
    return Cell(
        text,
        change="±0.0 %" if flat else f"{change.replace('-', '−')} %",
        direction="" if flat else "up" if difference.value > 0 else "down",
        held=difference.verdict in HELD,
        about=_told_in_full(difference),
    )


def _told_in_full(difference: Difference) -> str:
    number = difference.number(difference.value)
    if difference.test is None:
        return f"{number}; {difference.verdict}"
    p = p_text(difference.adjusted_p)
    return (
        f"{number}, {100 * LEVEL:.0f} % interval {difference.interval}, p {p}: {difference.verdict}"
    )
