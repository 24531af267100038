"""Reports: records to tables, figures and a page. Nothing here runs an experiment.

`load` reads records, `rows` makes of them what is shown as one; `differences`, `tables/`, `plots/`
and `notes` compute what is said of it, `terminal`, `text/` and `html/` say it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from aim_exp.console import console
from aim_exp.report import plots
from aim_exp.report.differences import Differences, differences
from aim_exp.report.files import write_text
from aim_exp.report.load import Runs, load
from aim_exp.report.paper import AS_IT_IS, Paper
from aim_exp.report.replicates import NOTHING_FIXED, Claim
from aim_exp.report.rows import Report, make_report
from aim_exp.report.summary import job_line
from aim_exp.report.terminal import print_run, print_sweep
from aim_exp.store.run_record import RunRecord

__all__ = [
    "bundle", "draw_run", "due", "refresh", "show_job", "show_run", "show_sweep", "write",
]  # fmt: skip

PAGE = "report.md"
HTML = "report.html"


def show_run(directory: Path, *, next_command: str | None = None, to: Console = console) -> None:
    """Print a run's table, what it comes to, where its files are, and a next command."""
    print_run(to, make_report(load(directory)), next_command)


def show_job(record: RunRecord, *, to: Console = console) -> None:
    """Print one line for a job of a sweep, whose table comes at the end."""
    to.print(job_line(record), soft_wrap=True, markup=False)


def show_sweep(
    runs: Runs, directory: Path, *, next_command: str | None = None, to: Console = console
) -> None:
    """Print the table of the runs in `directory`, what holds, a next command, and what failed."""
    report = make_report(runs)
    print_sweep(to, report, directory, differences(report), next_command)


def draw_run(directory: Path, *, vector: bool = True) -> Path | None:
    """Draw one run's Pareto front into `directory/figures`; None if nothing was scored.

    `vector`: as PDF too.
    """
    return plots.draw_front(make_report(load(directory)), directory, vector=vector)


def due(directory: Path, seconds: float) -> bool:
    """Whether the report of `directory` is missing, or older than `seconds`.

    It is made of every job's record each time: after every job would be ever more work.
    """
    page = directory / PAGE
    return not page.exists() or time.time() - page.stat().st_mtime > seconds


def refresh(directory: Path, *, running: bool = False) -> Runs:
    """Write the report of all runs in or below `directory` into it; the runs.

    `running`: others are still to end, so the page reloads itself, and there is no PDF yet.
    """
    report = make_report(load(directory))
    write(report, directory, differences(report), running=running)
    return report.runs


def write(
    report: Report,
    out: Path,
    compared: Sequence[Differences],
    *,
    axes: tuple[str, str] | None = None,
    x: str = "omega",
    running: bool = False,
    paper: Paper = AS_IT_IS,
    claim: Claim = NOTHING_FIXED,
) -> None:
    """CSV files, figures, tables for papers, `report.md` and `report.html`, in `out`.

    `axes` are the two benchmarks of the front, by default those in sharpest conflict; `x` is the
    full key of the swept setting that scores are shown against; `claim` is what was fixed before.
    """
    if not report.runs.jobs:
        return
    # What a run by itself, which is only shown, need not import.
    from aim_exp.report import html, text
    from aim_exp.report.context import make_context
    from aim_exp.report.csv_files import write_csvs
    from aim_exp.report.html.items import write_items
    from aim_exp.report.tables import write_tables

    report = report.with_margins(paper.margin)
    write_csvs(report, compared, out, claim)
    tables = [path.relative_to(out) for path in write_tables(report, out, paper, compared)]
    context = make_context(report, compared, tables, axes, x, running=running, claim=claim)
    plots.draw(context.charts, out, paper, vector=not running)
    write_items(report, out)
    write_text(out / PAGE, text.render("report.md", context=context))
    write_text(out / HTML, html.render(context))


def bundle(report: Report, site: Path, compared: Sequence[Differences], **chosen: Any) -> None:
    """The same as a folder that any static host serves: its page is `index.html`."""
    write(report, site, compared, **chosen)
    (site / HTML).replace(site / "index.html")
