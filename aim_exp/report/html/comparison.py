"""Runs against their baselines as the page shows them: in the form of the paper's tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aim_exp.report.board import NOTHING
from aim_exp.report.compare import comparison as compared
from aim_exp.report.compare.baselines import Baseline
from aim_exp.report.compare.comparison import AVERAGE, Comparison, Difference, Verdict
from aim_exp.report.compare.paired import GAIN
from aim_exp.report.html.tables import Cell, Row, anchor, filtered
from aim_exp.report.models import Estimate, Model
from aim_exp.report.results import Results
from aim_exp.report.summary import gain_text, p_text, percent
from aim_exp.statistics import LEVEL

HELD = (Verdict.ABOVE, Verdict.BELOW)


@dataclass(frozen=True)
class TwinGroup:
    """A twin (or another baseline) and the runs compared with it: a block of the paper's tables."""

    twin: Row
    rows: tuple[Row, ...]


def twin_groups(results: Results, comparison: Comparison) -> list[TwinGroup]:
    """A block per baseline, in the order of the comparison."""
    blocks: dict[tuple[Path, str], list[compared.Row]] = {}
    for row in comparison.rows:
        blocks.setdefault((row.baseline.job.directory, row.baseline.name), []).append(row)
    return [
        TwinGroup(
            twin=_baseline_row(results, comparison, rows[0]),
            rows=tuple(_run_row(results, comparison, row) for row in rows),
        )
        for rows in blocks.values()
    ]


def sentences(comparison: Comparison) -> list[str]:
    """Every comparison in words, and what was not compared."""
    return [*map(comparison.sentence, comparison.rows), *comparison.omissions()]


def _differences(row: compared.Row) -> dict[str, Difference]:
    gain = {GAIN: row.gain} if row.gain else {}
    return {AVERAGE: row.average, **gain, **row.scores}


def _baseline_row(results: Results, comparison: Comparison, row: compared.Row) -> Row:
    """Its values; a model that is no run's merge has no method, and no settings to filter by."""
    baseline = row.baseline
    job, values = baseline.job, _baseline_values(baseline)
    return Row(
        lead=(Cell(comparison.baseline_label(row)),),
        cells=tuple(_compared(name, values.get(name)) for name in _quantities(results)),
        method=job.record.method if baseline.is_merge else "",
        filtered=filtered(results, job) if baseline.is_merge else {},
        runs={job.name: anchor(results, job)},
    )


def _run_row(results: Results, comparison: Comparison, row: compared.Row) -> Row:
    """A run's values, and how each differs from its baseline's."""
    job, before, differences = row.job, _baseline_values(row.baseline), _differences(row)
    assert job.merged is not None, "what is compared is scored"
    values = _values(job.merged, job.record.hypervolume_gain)
    return Row(
        lead=(Cell(comparison.label(row)),),
        cells=tuple(
            _compared(name, values.get(name), before.get(name), differences.get(name))
            for name in _quantities(results)
        ),
        method=job.record.method,
        filtered=filtered(results, job),
        runs={job.name: anchor(results, job)},
    )


def _quantities(results: Results) -> tuple[str, ...]:
    return (AVERAGE, GAIN, *results.benchmarks)


def _baseline_values(baseline: Baseline) -> dict[str, float]:
    gain = baseline.job.record.hypervolume_gain if baseline.is_merge else None
    return _values(baseline.model, gain)


def _values(model: Model, gain: float | None) -> dict[str, float]:
    """By quantity; what was not scored has none."""
    assert model.average is not None, "a scored model has a benchmark"
    scores = {name: score.value for name, score in model.scores.items()}
    return {AVERAGE: model.average.value, **({} if gain is None else {GAIN: gain}), **scores}


def _compared(
    name: str,
    value: float | None,
    before: float | None = None,
    difference: Difference | None = None,
) -> Cell:
    """As in the paper: the value, and the difference in percent of the baseline's."""
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
