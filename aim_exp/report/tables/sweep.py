"""A quantity against any setting that was swept: a value a column, what else varies in the rows."""

from __future__ import annotations

from aim_exp.report.plots.series import NULL, OMEGA, Series, Sweep
from aim_exp.report.rows import AVERAGE, Group, margin_words
from aim_exp.report.rows import Row as Model
from aim_exp.report.tables.table import Cell, Column, Row, Table
from aim_exp.report.units import PERCENT

WITHOUT = "without it"
"""The column of merges that the setting plays no part in, plain ones among them."""


def sweep_table(shown: Sweep) -> Table | None:
    """The averages; None where nothing has two values."""
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
