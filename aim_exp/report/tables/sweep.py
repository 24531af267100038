"""Averages against any setting that was swept, and against how many experts went in."""

from __future__ import annotations

from statistics import fmean, stdev

from aim_exp.report.grouped import grouped
from aim_exp.report.plots.series import NULL, OMEGA, Series, Sweep
from aim_exp.report.rows import AVERAGE, Group, Report, margin_words
from aim_exp.report.rows import Row as Model
from aim_exp.report.settings import EXPERTS, label
from aim_exp.report.tables.table import Cell, Column, Row, Table
from aim_exp.report.units import PERCENT, unit

WITHOUT = "without it"
"""The column of merges that the setting plays no part in, plain ones among them."""
Gains = tuple[float, float, float | None]
"""A merge's average over that of base, and over the best of the experts that went in, and the
standard deviation of its average over draws."""


def sweep_table(shown: Sweep) -> Table | None:
    """A value a column, what else varies in the rows; None where nothing has two values."""
    if not shown.is_worth_drawing:
        return None
    values = sorted(shown.axis.places, key=shown.axis.places.__getitem__)
    levels = [each.level for each in shown.series if each.level]
    last = [NULL if shown.axis.key == OMEGA and not any(row.relaxed for row in levels) else WITHOUT]

    def cell(group: Group, model: Model | None) -> Cell:
        estimate = model and model.estimates.get(AVERAGE)
        return Cell.number(PERCENT, estimate.mean, group.margin(estimate)) if estimate else Cell()

    def row(each: Series) -> Row:
        at = {model.settings[shown.axis.key]: model for model in each.rows}
        models = [*map(at.get, values), *[each.level] * bool(levels)]
        name = Cell((each.name or "all") + each.group.mark)
        return Row((name, *(cell(each.group, model) for model in models)))

    return Table(
        columns=(
            Column(shown.axis.title),
            *(Column(value, numeric=True) for value in (*values, *last * bool(levels))),
        ),
        sections=(tuple(map(row, shown.series)),),
        unit="average, percent",
        margin=margin_words(each.group for each in shown.series),
    )


def experts_table(report: Report) -> Table | None:
    """A row for each method and number of experts; None where none has several numbers."""
    merges = grouped(
        (name + group.mark, (count, gains))
        for group in report.groups
        for name, count, gains in _gains(report, group)
    )
    by_count = {name: grouped(of) for name, of in merges.items()}
    varied = {name: of for name, of in by_count.items() if len(of) > 1}
    if not varied:
        return None
    return Table(
        columns=(
            Column("merge"),
            Column("experts", numeric=True),
            Column("merges", numeric=True),
            Column("above base", numeric=True),
            Column("over the best expert", numeric=True),
        ),
        sections=tuple(
            tuple(_row(name, count, of[count]) for count in sorted(of))
            for name, of in varied.items()
        ),
        unit="averages, percent",
        margin="standard deviation over the merges, of a single one over its draws",
        legend=("the best expert is the best by average of those that were merged",),
    )


def _gains(report: Report, group: Group) -> list[tuple[str, int, Gains]]:
    means = {row.model: row.estimates[AVERAGE].mean for row in group.members if row.estimates}
    names = [name for name in group.names if name != EXPERTS]
    merges = []
    for row in group.ranked:
        record = row.jobs[0].record
        merged = record.population.merged if record else ()
        if means and merged:
            average = row.estimates[AVERAGE]
            gains = [average.mean - of for of in (means["base"], max(means[n] for n in merged))]
            name = label(row.settings, names, report.shorts)
            merges.append((name, len(merged), (*gains, average.deviation)))
    return merges


def _row(name: str, count: int, gains: list[Gains]) -> Row:
    over_base, over_best, deviations = zip(*gains, strict=True)
    margin = stdev(over_best) if len(gains) > 1 else deviations[0]
    return Row((
        Cell(name),
        Cell(str(count), value=count),
        Cell(str(len(gains)), value=len(gains)),
        Cell(f"{sum(gain > 0 for gain in over_base)} of {len(gains)}"),
        Cell.number(unit(AVERAGE, signed=True), fmean(over_best), margin),
    ))  # fmt: skip
