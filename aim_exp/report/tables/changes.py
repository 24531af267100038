"""What merging and relaxing did to the weights: deltas of the experts, doses of the relaxations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aim_exp.report.doses import (
    ALL,
    DOSES,
    EXPLAINED,
    SHARES,
    deviations_of,
    dose_by_layer,
    dose_of,
)
from aim_exp.report.rows import Report
from aim_exp.report.rows import Row as Model
from aim_exp.report.tables.table import Cell, Column, Row, Table
from aim_exp.report.units import SHARE
from aim_exp.store.run_record import Dose, RunRecord


def dose_table(report: Report) -> Table | None:
    """A relaxed merge a row; of a single one each kind of module and layer. None without any."""
    relaxed = [(group, row, dose) for group in report.groups for row in group.merges
               if (dose := dose_of(row)) and row.relaxed]  # fmt: skip
    if not relaxed:
        return None
    rows = [
        Row((Cell(row.label + group.mark), *_numbers(dose[ALL], row)), key=row.key)
        for group, row, dose in relaxed
        if ALL in dose
    ]
    sections = [tuple(rows)]
    if len(rows) == 1:
        _, row, doses = relaxed[0]
        layers = [(f"layer {number}", dose) for number, dose in dose_by_layer(row).items()]
        kinds = [(kind, dose) for kind, dose in doses.items() if kind != ALL]
        sections += [
            tuple(Row((Cell(name), *_numbers(dose))) for name, dose in parts)
            for parts in (kinds, layers)
            if parts
        ]
    numbers = (Column(name, numeric=True) for name in (*DOSES, *SHARES))
    legend = (EXPLAINED, "differing: elements of relaxed tensors that are not the plain merge's")
    counted = any(len(row.draws) > 1 for _, row, _ in relaxed)
    return Table(
        (Column("run"), *numbers),
        tuple(sections),
        unit="shares" * counted,
        margin="standard deviation over draws" * counted,
        legend=legend,
    )


def deltas_table(record: RunRecord) -> Table | None:
    """How the experts' deltas lie to each other, a kind of module a row; None if not measured."""
    deltas = record.deltas
    if not deltas:
        return None
    names = {"relative": "|d|/|base|", "cosine": "cos", "sign_agreement": "signs"}
    columns = [(key, of) for key in names for of in deltas[ALL][key]]

    def rows(kinds: Sequence[str]) -> Iterator[Row]:
        for kind in kinds:
            numbers = (Cell.number(SHARE, deltas[kind][key][of]) for key, of in columns)
            yield Row((Cell(kind), *numbers))

    headings = (f"{names[key]} {of.replace(' ', '·')}" for key, of in columns)
    return Table(
        (Column("module"), *(Column(heading, numeric=True) for heading in headings)),
        (tuple(rows([ALL])), tuple(rows([kind for kind in deltas if kind != ALL]))),
        legend=(
            "norms of the experts' deltas over base's; cosines of two deltas; of the elements that "
            "both change, the share changed in the same direction",
        ),
    )


def _numbers(dose: Dose, row: Model | None = None) -> list[Cell]:
    """`row`: whose dose over all modules it is, with its spread over draws."""
    deviations = deviations_of(row)[ALL] if row else None
    return [
        Cell.number(SHARE, getattr(dose, field), deviations and getattr(deviations, field))
        for field in (*DOSES.values(), *SHARES.values())
    ]
