"""Runs against their twins on a terminal: what differs, and which differences hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from aim_exp.report.board import NOTHING
from aim_exp.report.compare.comparison import Comparison, Difference, Row, Verdict
from aim_exp.report.summary import p_text
from aim_exp.report.terminal import print_warning
from aim_exp.statistics import LEVEL

WORDS = {
    Verdict.ABOVE: Text("above", style="green"),
    Verdict.BELOW: Text("below", style="red"),
    Verdict.NOISE: Text("noise", style="yellow"),
    Verdict.UNTESTED: Text(NOTHING, style="dim"),
}


def print_comparison(console: Console, comparison: Comparison) -> None:
    """The differences in the average and the hypervolume gain, then by benchmark if that fits."""
    console.print()
    console.print(Text(f"against {comparison.title}", style="bold"), soft_wrap=True)
    averages = [[(row, row.average) for row in group.rows] for group in comparison.groups]
    gains = [[(row, row.gain) for row in group.rows if row.gain] for group in comparison.groups]
    _print(console, _tests(comparison, "average, points", averages))
    if any(gains):
        _print(console, _tests(comparison, "hypervolume gain", gains))
    by_benchmark = _by_benchmark(comparison)
    fits = Measurement.get(console, console.options, by_benchmark).minimum <= console.width
    if fits:
        _print(console, by_benchmark)
    console.print()
    console.print(Text(_legend(shown=fits), style="dim"), soft_wrap=True)
    for line in _warnings(comparison):
        print_warning(console, line)


def _tests(
    comparison: Comparison, title: str, groups: Sequence[Sequence[tuple[Row, Difference]]]
) -> Table:
    table = _empty_table(title)
    for heading in ("diff", f"{100 * LEVEL:.0f} % interval", "p", "Holm", "verdict"):
        table.add_column(heading, justify="right", no_wrap=True)
    for group in groups:
        for row, difference in group:
            test = difference.test
            table.add_row(
                row.job.folder,
                comparison.label(row),
                difference.number(difference.value),
                difference.interval or NOTHING,
                p_text(test.p if test else None),
                p_text(difference.adjusted_p),
                WORDS[difference.verdict],
            )
        table.add_section()
    return table


def _by_benchmark(comparison: Comparison) -> Table:
    names = list(dict.fromkeys(name for row in comparison.rows for name in row.scores))
    table = _empty_table("by benchmark, points")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for group in comparison.groups:
        for row in group.rows:
            cells = [_cell(row.scores.get(name)) for name in names]
            table.add_row(row.job.folder, comparison.label(row), *cells)
        table.add_section()
    return table


def _cell(difference: Difference | None) -> Text:
    """Coloured and starred where it holds."""
    if difference is None:
        return Text(NOTHING, style="dim")
    text = difference.number(difference.value)
    if difference.verdict in (Verdict.ABOVE, Verdict.BELOW):
        return Text(f"{text}*", style=WORDS[difference.verdict].style)
    return Text(f"{text} ")


def _legend(*, shown: bool) -> str:
    lines = (
        "diff, interval, p: on the same items, for the row alone",
        f"Holm: p adjusted for the number of rows; below {1 - LEVEL:.2g} the difference holds",
        "by benchmark: * holds, adjusted for all cells"
        if shown
        else "by benchmark: in report.md, or on a wider terminal",
    )
    return "\n".join(lines)


def _warnings(comparison: Comparison) -> Iterable[str]:
    """The best of each group, which one would quote, if it does not hold; then what is missing."""
    for group in comparison.groups:
        best = max(group.rows, key=lambda row: row.average.value)
        if best.average.value > 0 and best.average.verdict == Verdict.NOISE:
            yield comparison.sentence(best)
    yield from comparison.omissions()


def _empty_table(title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("job", no_wrap=True)
    table.add_column(title, overflow="fold")
    return table


def _print(console: Console, table: Table) -> None:
    console.print()
    console.print(table)
