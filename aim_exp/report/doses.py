"""How much of the plain merge's change a relaxation left: by kind of module and by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import TypeVar

from aim_exp.report.grouped import grouped
from aim_exp.report.rows import Row
from aim_exp.store.run_record import Dose

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
    return _over([draw.record.dose for draw in row.draws], fmean)


def dose_by_layer(row: Row) -> dict[int, Dose]:
    """The same by layer."""
    return _over([draw.record.dose_by_layer for draw in row.draws], fmean)


def deviations_of(row: Row) -> dict[str, Dose]:
    """Standard deviations over the row's draws, by kind of module; None of a single one."""
    tables = [draw.record.dose for draw in row.draws]
    return _over(tables, lambda values: stdev(values) if len(values) > 1 else None)


def dose_words(dose: Mapping[str, Dose]) -> str:
    """`mean r 0.71, norm 0.68, outputs 0.55 of the change left`; empty without any."""
    values = {name: getattr(dose[ALL], field) for name, field in DOSES.items() if ALL in dose}
    known = [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
    return f"{', '.join(known)} of the merge's change left" if known else ""


def _over(
    tables: Sequence[Mapping[T, Dose]], statistic: Callable[[Sequence[float]], float | None]
) -> dict[T, Dose]:
    def over(doses: Sequence[Dose], field: str) -> float | None:
        known = [value for dose in doses if (value := getattr(dose, field)) is not None]
        return statistic(known) if known else None

    fields = (*DOSES.values(), *SHARES.values())
    return {
        part: replace(doses[0], **{field: over(doses, field) for field in fields})
        for part, doses in grouped(pair for table in tables for pair in table.items()).items()
    }
