"""Models held against their baselines: what differs, and which differences hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import NormalDist, median
from typing import Any
from urllib.parse import quote

from aim_exp.report.differences import AVERAGE, GAIN, Contrast, Difference, Differences, Verdict
from aim_exp.report.tables.table import NOTHING, Cell, Column, Row, Table
from aim_exp.statistics import LEVEL
from aim_exp.statistics.power import POWER

INTERVAL = f"{100 * LEVEL:.0f} % interval"
VERDICTS: dict[Verdict, Cell] = {
    Verdict.ABOVE: Cell("above", tone="good"),
    Verdict.BELOW: Cell("below", tone="bad"),
    Verdict.NOISE: Cell("noise", tone="doubt"),
    Verdict.UNTESTED: Cell(NOTHING, tone="dim"),
}
TESTS = (
    "answers that are right or wrong: McNemar's exact test, Bonett and Price's interval; else a "
    "randomisation test that swaps the two models' answers, and the percentile interval of a "
    "paired bootstrap over the items of each benchmark",
    "intervals are for each difference by itself",
)


def verdict_table(differences: Differences, quantity: str) -> Table | None:
    """One quantity of every run: difference, interval, p, verdict. None where no run has it."""

    def cells(contrast: Contrast) -> list[Cell]:
        if (difference := contrast.differences.get(quantity)) is None:
            return []
        return [
            Cell(difference.number(difference.value), value=difference.value),
            Cell(difference.interval or NOTHING),
            Cell(p_text(difference.test.p if difference.test else None)),
            Cell(p_text(difference.adjusted_p)),
            VERDICTS[difference.verdict],
        ]

    names = ("diff", INTERVAL, "p", "Holm")
    numbers = [Column(name, numeric=True, optional=name == "p") for name in names]
    title = f"{quantity}, points" if quantity == AVERAGE else quantity
    table = _table(differences, [*numbers, Column("verdict")], cells, title=title)
    return table if table.rows else None


def benchmark_table(differences: Differences, benchmarks: Sequence[str]) -> Table:
    """The difference on each benchmark, with a star where it holds."""

    def cell(difference: Difference | None) -> Cell:
        if difference is None:
            return Cell(NOTHING, tone="dim")
        text = difference.number(difference.value)
        tone = VERDICTS[difference.verdict].tone
        return Cell(f"{text}*", tone=tone) if difference.holds else Cell(f"{text} ")

    return _table(
        differences,
        [Column(name, numeric=True) for name in benchmarks],
        lambda contrast: [cell(contrast.differences.get(name)) for name in benchmarks],
        title="by benchmark, points",
        legend=("*: holds, by its own adjusted p and interval",),
    )


def difference_table(differences: Differences, benchmarks: Sequence[str]) -> Table:
    """Everything at once: average, gain and benchmarks, each with its interval and adjusted p."""
    quantities = (AVERAGE, GAIN, *benchmarks)
    kept = [q for q in quantities if any(q in each.differences for each in differences.contrasts)]
    names = {GAIN: "gain", AVERAGE: "avg"}
    table = _table(
        differences,
        [Column(names.get(quantity, quantity), numeric=True) for quantity in kept],
        lambda contrast: [_cell(contrast, quantity, benchmarks) for quantity in kept],
        unit="points",
        legend=(*explained(differences), *TESTS),
    )
    return replace(table, sections=(*table.sections, *_smallest(differences, kept)))


def _table(
    differences: Differences,
    columns: Sequence[Column],
    cells: Callable[[Contrast], Sequence[Cell]],
    **about: Any,
) -> Table:
    """A row for each run that has cells, a section for each group."""
    sections = (
        tuple(
            Row((Cell(each.job.title), Cell(each.label), *own), key=each.merge.row.key)
            for each in contrasts
            if (own := cells(each))
        )
        for _, contrasts in differences.grouped()
    )
    lead = (Column("job"), Column("run"))
    return Table((*lead, *columns), tuple(filter(None, sections)), **about)


def explained(differences: Differences) -> list[str]:
    """What the numbers of `difference_table` are."""
    return [
        f"each run minus {differences.own}, these weights on the same items: the difference, its "
        f"{INTERVAL}, and p adjusted by Holm's method over the {differences.family_words}",
        "the interval: of what other items of the same kind would give, not other seeds",
        "bold: holds, by that p and by an interval that leaves out 0",
        "last row: the smallest difference that these items would show, for one comparison",
    ]


MODEL = 20
"""Digits of a model's identity on the page."""


def _smallest(differences: Differences, quantities: Sequence[str]) -> Iterator[tuple[Row]]:
    """The least difference that such a comparison would see, by the median of the intervals."""

    def cell(quantity: str) -> Cell:
        every = (each.differences.get(quantity) for each in differences.contrasts)
        known = [each for each in every if each and each.test and each.test.high > each.test.low]
        if not known:
            return Cell(NOTHING, tone="dim")
        errors = [detectable_by(each.test.low, each.test.high) for each in known if each.test]
        return Cell(known[0].number(median(errors), sign=False), tone="dim")

    cells = tuple(map(cell, quantities))
    lead = (Cell(), Cell(f"least that shows ({100 * POWER:.0f} % power)", tone="dim"))
    if any(each.text != NOTHING for each in cells):
        yield (Row((*lead, *cells), competes=False),)


def detectable_by(low: float, high: float) -> float:
    """What a two-sided test at 1 - `LEVEL` sees with `POWER`, of an interval of that level."""
    normal = NormalDist()
    critical = normal.inv_cdf((1 + LEVEL) / 2)
    return (high - low) / (2 * critical) * (critical + normal.inv_cdf(POWER))


def _cell(contrast: Contrast, quantity: str, benchmarks: Sequence[str]) -> Cell:
    """`+1.8 (-0.9 to +4.6; p 0.360)`, the number strong where it holds; it leads to the items."""
    difference = contrast.differences.get(quantity)
    if difference is None:
        return Cell(NOTHING, tone="dim")
    p = p_text(difference.adjusted_p)
    return Cell(
        difference.number(difference.value),
        detail=f"({difference.interval}; p {p})" if difference.test else "",
        strong=difference.holds,
        tone=VERDICTS[difference.verdict].tone if difference.holds else "",
        value=difference.value,
        about=str(difference.verdict),
        link=_items_link(contrast, quantity if quantity in benchmarks else benchmarks[0]),
    )


def _items_link(contrast: Contrast, benchmark: str) -> str:
    """Where the page shows what the two models answered, by their identities."""
    after, before = (draw.identity[:MODEL] for draw in contrast.draws)
    return f"items={quote(benchmark)}&a={before}&b={after}"


def p_text(p: float | None) -> str:
    """`0.043`, `<0.001`, or a dash where nothing was tested."""
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"
