"""Reports: records to tables, figures and a page. Nothing here runs an experiment.

`models`, `settings`, `results`, `board`, `plots` and `notes` compute what is shown;
`terminal`, `page`, `table_file` and `figures` only draw it.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from aim_exp.console import console
from aim_exp.records import RunRecord
from aim_exp.report.figures import draw
from aim_exp.report.figures import due as figures_due
from aim_exp.report.page import write_page
from aim_exp.report.plots import Axes
from aim_exp.report.results import Results, collect, join
from aim_exp.report.table_file import write_table
from aim_exp.report.terminal import print_job, print_run, print_sweep

__all__ = ["draw_run", "figures_due", "rebuild", "refresh", "show_job", "show_run", "show_sweep"]


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


def show_sweep(directory: Path, *, to: Console = console) -> None:
    """Print the table of every run in or below `directory`, and what failed."""
    print_sweep(to, collect(directory), directory)


def draw_run(record: RunRecord, directory: Path) -> Path | None:
    """Draw one run's Pareto front into `directory/figures`; None if nothing was scored."""
    drawn = draw(join([(directory, record)], [directory]), directory)
    return drawn[0] if drawn else None


def refresh(directory: Path, *, figures: bool) -> None:
    """Write `results.csv`, `report.md` and, if asked, the figures of a sweep's directory."""
    rebuild(collect(directory), directory, figures=figures)


def rebuild(results: Results, out: Path, *, figures: bool = True, axes: Axes | None = None) -> None:
    """The same for results from anywhere; the figures come first, as the page shows them."""
    if not results.jobs:
        return
    if figures:
        draw(results, out, axes)
    write_table(results, out / "results.csv")
    write_page(results, out / "report.md")
