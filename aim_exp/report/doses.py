"""How much of the plain merge's change a relaxation left: by kind of module and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TypeVar

from aim_exp.report.rows import Row
from aim_exp.store.records import Dose

T = TypeVar("T")
ALL = "all"
"""A record's sum over all kinds of modules."""
DOSES: Mapping[str, str] = {"mean r": "mean_r", "norm": "norm", "outputs": "outputs"}
"""By the name that is shown, the field of a record's `Dose`."""
SHARES: Mapping[str, str] = {"r < 0.9": "share_below", "differing": "differing"}
EXPLAINED = (
    "shares of the plain merge's change that are left; mean r: over channels; norm: of the delta; "
    "outputs: of the change of outputs, on the calibration texts"
)


def dose_of(row: Row) -> dict[str, Dose]:
    """By kind of module and `ALL`, means over the row's draws; empty where nothing was relaxed."""
    return _means([draw.record.dose for draw in row.draws])


def dose_by_layer(row: Row) -> dict[int, Dose]:
    """The same by layer."""
    return _means([draw.record.dose_by_layer for draw in row.draws])


def dose_words(dose: Mapping[str, Dose]) -> str:
    """`mean r 0.71, norm 0.68, outputs 0.55 of the change left`; empty without any."""
    values = {name: getattr(dose[ALL], field) for name, field in DOSES.items() if ALL in dose}
    known = [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
    return f"{', '.join(known)} of the merge's change left" if known else ""


def _means(tables: Sequence[Mapping[T, Dose]]) -> dict[T, Dose]:
    parts = dict.fromkeys(part for table in tables for part in table)
    return {part: _mean([table[part] for table in tables if part in table]) for part in parts}


def _mean(doses: Sequence[Dose]) -> Dose:
    if len(doses) == 1:
        return doses[0]

    def mean(field: str) -> float | None:
        known = [value for dose in doses if (value := getattr(dose, field)) is not None]
        return fmean(known) if known else None

    fields = (*DOSES.values(), *SHARES.values())
    return replace(doses[0], **{field: mean(field) for field in fields})
