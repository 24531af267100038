"""The paper's tables on a terminal: as they are, and our scores beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aim_exp.console import print_warning, print_whole
from aim_exp.report.board import NOTHING
from aim_exp.report.models import Estimate
from aim_exp.report.published import (
    BENCHMARKS,
    MEMBERS,
    POPULATION,
    PUBLISHED_POPULATIONS,
    Pair,
    Published,
    pairs,
    published,
)
from aim_exp.report.results import Results
from aim_exp.report.summary import error_text, gain_text

READINGS = """\
Percent, and hypervolume gain (d-th root) against base and some experts:
gain      against the experts that reproduce the printed gains; in the blocks code+instruct and
          instruct+math these are not the merged ones
by label  against the experts that were merged, as everywhere else in this project
"""


def print_paper(console: Console) -> None:
    """Every table: a line without AIM, one with it, and the change in percent."""
    table = _table("experts", "method", "AIM", benchmarks=BENCHMARKS, more=("gain", "by label"))
    for name in MEMBERS:
        row = published()["", name, None]
        table.add_row(name, "", "", *map(_percent, row.scores.values()), "", "")
    for experts in PUBLISHED_POPULATIONS:
        table.add_section()
        rows = [row for row in published().values() if row.method and row.experts == experts]
        for number, (plain, relaxed) in enumerate(zip(rows[::2], rows[1::2], strict=True)):
            table.add_row(experts if number == 0 else "", plain.method, "no", *_cells(plain))
            table.add_row("", "", "yes", *_cells(relaxed))
            table.add_row("", "", "change", *_changes(plain, relaxed), style="dim")
    print_whole(console, table)
    console.print(Text(f"\n{READINGS}", style="dim"), soft_wrap=True)


def print_published(console: Console, results: Results) -> None:
    """Our models that the paper has too, the difference, and whether it is within our error."""
    found = pairs(results)
    benchmarks = [name for name in BENCHMARKS if any(name in pair.ours for pair in found)]
    table = _table("model", "", benchmarks=benchmarks, more=("within",))
    for pair in found:
        table.add_section()
        for cells in _lines(pair, benchmarks):
            table.add_row(*cells)
    print_whole(console, table)
    legend = "percent ± our standard error; *: the difference is larger than that"
    console.print(Text(f"\n{legend}", style="dim"), soft_wrap=True)
    others = {str(job.record.population.get("name")) for job in results.jobs} - {POPULATION}
    if others:
        warning = f"the paper's population is {POPULATION}, these runs also use {', '.join(others)}"
        print_warning(console, warning)


def _lines(pair: Pair, benchmarks: Sequence[str]) -> Iterator[list[str | Text]]:
    shared = set(pair.benchmarks)
    ours = [_ours(pair.ours[name]) if name in shared else NOTHING for name in benchmarks]
    paper = [_percent(pair.paper.scores[name]) for name in benchmarks]
    difference = [_difference(pair, name) if name in shared else "" for name in benchmarks]
    verdicts = [pair.within(name) for name in shared]
    within = f"{verdicts.count(True)} of {len(verdicts) - verdicts.count(None)}"
    yield [pair.label, "ours", *ours, within]
    yield ["", "paper", *paper, ""]
    yield ["", "difference", *difference, ""]


def _difference(pair: Pair, benchmark: str) -> Text:
    outside = pair.within(benchmark) is False
    text = f"{100 * pair.difference(benchmark):+.1f}" + ("*" if outside else "")
    return Text(text, style="yellow" if outside else "")


def _cells(row: Published) -> list[str]:
    scores = [_percent(score) for score in row.scores.values()]
    return [*scores, gain_text(row.gain_as_published), gain_text(row.gain_by_label)]


def _changes(plain: Published, relaxed: Published) -> Iterator[str]:
    before, after = (
        [*row.scores.values(), row.gain_as_published, row.gain_by_label] for row in (plain, relaxed)
    )
    for old, new in zip(before, after, strict=True):
        yield f"{100 * (new / old - 1):+.1f}%" if old else NOTHING


def _ours(score: Estimate) -> str:
    return f"{_percent(score.value)} {error_text(score)}".rstrip()


def _percent(score: float) -> str:
    """With one more digit than elsewhere, as the paper prints them."""
    return f"{100 * score:.2f}"


def _table(*lead: str, benchmarks: Sequence[str], more: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for heading in lead:
        table.add_column(heading, no_wrap=True)
    for heading in (*benchmarks, *more):
        table.add_column(heading, justify="right", no_wrap=True)
    return table
