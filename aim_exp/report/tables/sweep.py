"""A quantity against any setting that was swept: a value a column, what else varies in the rows."""

from __future__ import annotations

from aim_exp.report.plots.series import NULL, OMEGA, Series, Sweep
from aim_exp.report.rows import AVERAGE, Report
from aim_exp.report.rows import Row as Model
from aim_exp.report.tables.table import PERCENT, Cell, Column, Row, Table

WITHOUT = "without it"
"""The column of merges that the setting plays no part in, plain ones among them."""


def sweep_table(report: Report, shown: Sweep) -> Table | None:
    """The averages; None where nothing has two values."""
    if not shown.is_worth_drawing:
        return None
    values = sorted(shown.axis.places, key=shown.axis.places.__getitem__)
    levels = [each.level for each in shown.series if each.level]
    last = [NULL if shown.axis.key == OMEGA and not any(row.relaxed for row in levels) else WITHOUT]
    counted = any(row.n > 1 for row in report.merges)

    def cell(model: Model | None) -> Cell:
        estimate = model and model.estimates.get(AVERAGE)
        if not estimate:
            return Cell()
        return Cell.number(
            PERCENT, estimate.mean, estimate.deviation if counted else estimate.stderr
        )

    def row(each: Series) -> Row:
        at = {model.settings[shown.axis.key]: model for model in each.rows}
        name = Cell((each.name or "all") + each.group.mark)
        return Row((name, *(cell(at.get(v)) for v in values), *[cell(each.level)] * bool(levels)))

    return Table(
        columns=(
            Column(shown.axis.title),
            *(Column(value, numeric=True) for value in (*values, *last * bool(levels))),
        ),
        sections=(tuple(map(row, shown.series)),),
        unit="average, percent",
        margin="standard deviation over draws" if counted else "standard error",
    )
