"""Runs against their baselines on a terminal: what differs, and which differences hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aim_exp.console import natural_width, print_warning
from aim_exp.report.board import NOTHING
from aim_exp.report.compare.comparison import Comparison, Difference, Row, Verdict
from aim_exp.report.summary import p_text
from aim_exp.statistics import LEVEL, ROUNDING

WORDS = {
    Verdict.ABOVE: Text("above", style="green"),
    Verdict.BELOW: Text("below", style="red"),
    Verdict.NOISE: Text("noise", style="yellow"),
    Verdict.UNTESTED: Text(NOTHING, style="dim"),
}
SETTINGS_BELOW = 28
"""Characters for settings that stand below the job; what is longer wraps."""

Place = Literal["beside", "below", "nowhere"]
"""Where a run's settings stand, seen from its job."""


def print_comparison(console: Console, comparison: Comparison) -> None:
    """The differences in the average, the hypervolume gain and, if that fits, each benchmark."""
    console.print()
    console.print(Text(f"against {comparison.title}", style="bold"), soft_wrap=True)
    tables, legend = _layout(console, comparison)
    for table in tables:
        console.print()
        console.print(table)
    console.print()
    console.print(Text("\n".join(legend), style="dim"), soft_wrap=True)
    for line in (*_best_is_noise(comparison), *comparison.omissions()):
        print_warning(console, line)


def _layout(console: Console, comparison: Comparison) -> tuple[list[Table], list[str]]:
    """The tables of the first layout that fits, and a legend."""
    wide = _tables(comparison, "beside", "beside")
    narrow = _tables(comparison, "below", "nowhere")
    layouts = (wide, narrow, wide[:-1], narrow[:-1])
    chosen = next((tables for tables in layouts if _fit(console, tables)), narrow[:-1])
    return chosen, [
        *(["a job's settings: in the table of averages"] if chosen[0] is narrow[0] else []),
        "diff, interval, p: on the same items, for the row alone",
        f"Holm: p adjusted over the {comparison.family_words}",
        f"above, below: Holm below {1 - LEVEL:.2g}, and 0 outside the interval; else noise",
        "by benchmark: * holds, by its own adjusted p and interval"
        if len(chosen) == len(wide)
        else "by benchmark: in report.md, or on a wider terminal",
    ]


def _fit(console: Console, tables: Iterable[Table]) -> bool:
    return all(natural_width(console, table) <= console.width for table in tables)


def _tables(comparison: Comparison, first: Place, others: Place) -> list[Table]:
    """Of the average, of the gain if any run has one, and of the benchmarks."""
    averages = [[(row, row.average) for row in group.rows] for group in comparison.groups]
    gains = [[(row, row.gain) for row in group.rows if row.gain] for group in comparison.groups]
    return [
        _tests(comparison, "average, points", averages, first),
        *([_tests(comparison, "hypervolume gain", gains, others)] if any(gains) else []),
        _by_benchmark(comparison, others),
    ]


def _tests(
    comparison: Comparison,
    title: str,
    groups: Sequence[Sequence[tuple[Row, Difference]]],
    settings: Place,
) -> Table:
    headings = ("diff", f"{100 * LEVEL:.0f} % interval", "p", "Holm", "verdict")
    table = _empty_table(comparison, title, headings, settings)
    for group in groups:
        for row, difference in group:
            test = difference.test
            table.add_row(
                *_lead(comparison, row, settings),
                difference.number(difference.value),
                difference.interval or NOTHING,
                p_text(test.p if test else None),
                p_text(difference.adjusted_p),
                WORDS[difference.verdict],
            )
        table.add_section()
    return table


def _by_benchmark(comparison: Comparison, settings: Place) -> Table:
    names = list(dict.fromkeys(name for row in comparison.rows for name in row.scores))
    table = _empty_table(comparison, "by benchmark, points", names, settings)
    for group in comparison.groups:
        for row in group.rows:
            cells = [_cell(row.scores.get(name)) for name in names]
            table.add_row(*_lead(comparison, row, settings), *cells)
        table.add_section()
    return table


def _lead(comparison: Comparison, row: Row, settings: Place) -> tuple[str, ...]:
    job, label = row.job.name, comparison.label(row)
    return {"beside": (job, label), "below": (f"{job}\n{label}",), "nowhere": (job,)}[settings]


def _cell(difference: Difference | None) -> Text:
    """Coloured and starred where it holds."""
    if difference is None:
        return Text(NOTHING, style="dim")
    text = difference.number(difference.value)
    if difference.verdict in (Verdict.ABOVE, Verdict.BELOW):
        return Text(f"{text}*", style=WORDS[difference.verdict].style)
    return Text(f"{text} ")


def _best_is_noise(comparison: Comparison) -> Iterable[str]:
    """The best of each group, which one would quote, if it does not hold."""
    for group in comparison.groups:
        best = max(group.rows, key=lambda row: row.average.value)
        if best.average.value > ROUNDING and best.average.verdict == Verdict.NOISE:
            yield f"no claim holds for the best: {comparison.sentence(best)}"


def _empty_table(
    comparison: Comparison, title: str, headings: Sequence[str], settings: Place
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    if settings == "beside":
        table.add_column("job", no_wrap=True)
        table.add_column(title, no_wrap=True)
    else:
        longest = max(len(row.job.name) for row in comparison.rows)
        table.add_column(title, overflow="fold", max_width=max(SETTINGS_BELOW, longest))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
