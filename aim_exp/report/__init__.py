"""Reports: records to tables, figures and a page. Nothing here runs an experiment.

`models`, `settings`, `results`, `seeds`, `studies`, `board`, `plots`, `compare/`, `tables/` and
`notes` compute what is shown; `terminal`, `page`, `html/`, `results_csv`, `figures/` only draw it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from aim_exp.console import console
from aim_exp.report.compare.comparison import Comparison, compare_runs
from aim_exp.report.figures import draw, draw_front
from aim_exp.report.html import write_html
from aim_exp.report.page import write_page
from aim_exp.report.plots import Axes
from aim_exp.report.results import Results, collect, join
from aim_exp.report.results_csv import write_table
from aim_exp.report.tables.formats import write_score_tables
from aim_exp.report.terminal import print_job, print_run, print_sweep
from aim_exp.store.records import RunRecord

__all__ = ["draw_run", "due", "rebuild", "refresh", "show_job", "show_run", "show_sweep"]

PAGE = "report.md"
HTML = "report.html"


def show_run(
    record: RunRecord,
    directory: Path,
    *,
    next_command: str | None = None,
    to: Console = console,
) -> None:
    """Print a run's table, what it comes to, where its files are, and a next command."""
    print_run(to, record, directory, next_command)


def show_job(record: RunRecord, *, to: Console = console) -> None:
    """Print one line for a job of a sweep, whose table comes at the end."""
    print_job(to, record)


def show_sweep(
    directory: Path,
    *,
    planned: int | None = None,
    next_command: str | None = None,
    to: Console = console,
) -> None:
    """Print the table of every run in or below `directory`, a next command, and what failed.

    `planned`: how many jobs the sweep has, which may have ended before the last.
    """
    results = replace(collect(directory), planned=planned)
    print_sweep(to, results, directory, compare_runs(results), next_command)


def draw_run(record: RunRecord, directory: Path, *, vector: bool = True) -> Path | None:
    """Draw one run's Pareto front into `directory/figures`; None if nothing was scored.

    `vector`: as PDF too.
    """
    return draw_front(join([(directory, record)], [directory]), directory, vector=vector)


def refresh(directory: Path, *, planned: int | None = None) -> None:
    """Write `results.csv`, `report.md`, `report.html` and the figures of a sweep's directory.

    `planned`: as for `show_sweep`, once the sweep has ended.
    """
    rebuild(replace(collect(directory), planned=planned), directory)


def due(directory: Path, seconds: float = 30) -> bool:
    """Whether the report of `directory` is missing, or older than `seconds`.

    It is made of every job's record each time: after every job would be ever more work.
    """
    page = directory / PAGE
    return not page.exists() or time.time() - page.stat().st_mtime > seconds


def rebuild(
    results: Results,
    out: Path,
    *,
    axes: Axes | None = None,
    comparison: Comparison | None = None,
) -> None:
    """The same for results from anywhere; the figures come first, as the page shows them.

    `comparison` is by default that with the plain merges, where there are any.
    """
    if not results.jobs:
        return
    comparison = comparison or compare_runs(results)
    draw(results, out, axes)
    write_score_tables(results, out)
    write_table(results, out / "results.csv")
    write_page(results, out / PAGE, comparison)
    write_html(results, out / HTML, comparison, axes)
