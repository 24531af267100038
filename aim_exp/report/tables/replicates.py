"""Differences over replicates: values, intervals where there may be some, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from aim_exp.report.differences import AVERAGE, GAIN
from aim_exp.report.replicates import Replicated
from aim_exp.report.tables.differences import INTERVAL, p_text
from aim_exp.report.tables.table import NOTHING, Cell, Column, Row, Table, Tone
from aim_exp.report.units import PERCENT, unit
from aim_exp.statistics import MIN_REPLICATES, Conclusion, Design, ReplicateTest

TONES: dict[Conclusion, Tone] = {
    Conclusion.BETTER: "good", Conclusion.WORSE: "bad", Conclusion.EQUIVALENT: "mark",
    Conclusion.INCONCLUSIVE: "doubt",
}  # fmt: skip


def replicate_table(every: Sequence[Replicated], benchmarks: Sequence[str]) -> Table | None:
    """The average of each merge with its interval, then gain and benchmarks; None without any."""
    if not every:
        return None
    quantities = [q for q in (GAIN, *benchmarks) if any(q in each.tests for each in every)]
    locked = any(each.role for each in every)

    def row(each: Replicated) -> Row:
        average = each.tests[AVERAGE]
        verdict = Cell(each.verdict, tone=TONES[each.verdict])
        lead = (Cell(each.label), Cell(each.against), Cell(each.n), Cell(average.design))
        ends = (_cell(average, AVERAGE), Cell(p_text(each.adjusted_p)))
        rest = (_cell(each.tests.get(quantity), quantity) for quantity in quantities)
        role = [Cell(each.role or "")] * locked
        return Row((*lead, *role, verdict, *ends, *rest), key=each.key)

    names = ("avg", "Holm", *("gain" if q == GAIN else q for q in quantities))
    texts = ("run", "against", "n", "test", *["in the study"] * locked, "verdict")
    return Table(
        (*map(Column, texts), *(Column(name, numeric=True) for name in names)),
        (tuple(map(row, every)),),
        unit="points",
        margin="standard deviation over replicates where there is no interval",
        legend=tuple(_legend(every)),
    )


def _legend(every: Sequence[Replicated]) -> list[str]:
    designs = {each.tests[AVERAGE].design for each in every}
    margins = {each.equivalence.margin for each in every if each.equivalence}
    explained = {
        Design.PAIRED_T: "paired t: over replicates with items of their own",
        Design.CROSSED_BOOTSTRAP: "crossed bootstrap: replicates and the items that they share are "
        "both drawn (Owen 2007)",
        Design.VALUES: f"values: below {MIN_REPLICATES} replicates, or without items, no interval",
    }
    return [
        f"in brackets the {INTERVAL} of what other replicates would give",
        *(text for design, text in explained.items() if design in designs),
        f"Holm: p of the average, adjusted over these {len(every)} runs",
        *(
            f"equivalent: by two one-sided tests within +{PERCENT.write(margin)} points"
            for margin in margins
        ),
    ]


def _cell(test: ReplicateTest | None, quantity: str) -> Cell:
    """`+1.2 (+0.4 to +2.0)`, or `+1.2 ±0.8` where there is no interval."""
    if test is None:
        return Cell(NOTHING, tone="dim")
    signed = unit(quantity, signed=True)
    if test.low is None or test.high is None:
        return Cell.number(signed, test.difference, test.deviation)
    ends = f"({signed.write(test.low)} to {signed.write(test.high)})"
    return Cell(signed.write(test.difference), ends, value=test.difference)
