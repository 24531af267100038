"""Reports: records to tables, figures and a page. Nothing here runs an experiment.

`load` reads records, `rows` makes of them what is shown as one; `differences`, `tables/`, `plots/`
and `notes` compute what is said of it, `terminal`, `text/` and `html/` say it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from aim_exp.console import console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aim_exp.report.differences import Differences
    from aim_exp.report.load import Runs
    from aim_exp.report.paper import Paper
    from aim_exp.report.replicates import Claim
    from aim_exp.report.rows import Report
    from aim_exp.store.records import RunRecord

__all__ = [
    "bundle",
    "draw_run",
    "due",
    "figures",
    "refresh",
    "show_job",
    "show_run",
    "show_sweep",
    "write",
]

PAGE = "report.md"
HTML = "report.html"


def show_run(directory: Path, *, next_command: str | None = None, to: Console = console) -> None:
    """Print a run's table, what it comes to, where its files are, and a next command."""
    from aim_exp.report.terminal import print_run

    print_run(to, _report(directory), next_command)


def show_job(record: RunRecord, *, to: Console = console) -> None:
    """Print one line for a job of a sweep, whose table comes at the end."""
    from aim_exp.report.summary import job_line

    to.print(job_line(record), soft_wrap=True, markup=False)


def show_sweep(
    runs: Runs, directory: Path, *, next_command: str | None = None, to: Console = console
) -> None:
    """Print the table of the runs in `directory`, what holds, a next command, and what failed."""
    from aim_exp.report.differences import differences
    from aim_exp.report.rows import make_report
    from aim_exp.report.terminal import print_sweep

    report = make_report(runs)
    print_sweep(to, report, directory, differences(report), next_command)


def draw_run(directory: Path, *, vector: bool = True) -> Path | None:
    """Draw one run's Pareto front into `directory/figures`; None if nothing was scored.

    `vector`: as PDF too.
    """
    from aim_exp.report import plots

    return plots.draw_front(_report(directory), directory, vector=vector)


def figures(
    *directories: str | Path, axes: tuple[str, str] | None = None, x: str = "omega"
) -> dict[str, Figure]:
    """The figures of a report on `directories` as Matplotlib objects, by name.

    `axes`: the two benchmarks of the front; `x`: the setting that scores are shown against, in full
    or short. AimError if there is none of that name.
    """
    from aim_exp.report import plots
    from aim_exp.report.baselines import parse_names
    from aim_exp.report.plots.canvas import painted

    report = _report(*map(Path, directories))
    (key,) = parse_names(report, "x", [x])
    shown = plots.figures(report, axes, key)
    return {name: painted(paint) for name, (_, paint) in shown.items()}


def due(directory: Path, seconds: float = 30) -> bool:
    """Whether the report of `directory` is missing, or older than `seconds`.

    It is made of every job's record each time: after every job would be ever more work.
    """
    page = directory / PAGE
    return not page.exists() or time.time() - page.stat().st_mtime > seconds


def refresh(directory: Path, *, running: bool = False) -> Runs:
    """Write the report of all runs in or below `directory` into it; the runs.

    `running`: others are still to end, so the page reloads itself.
    """
    from aim_exp.report.differences import differences

    report = _report(directory)
    write(report, directory, differences(report), running=running)
    return report.runs


def write(
    report: Report,
    out: Path,
    differences: Sequence[Differences],
    *,
    axes: tuple[str, str] | None = None,
    x: str = "omega",
    running: bool = False,
    paper: Paper | None = None,
    claim: Claim | None = None,
) -> None:
    """CSV files, figures, tables for papers, `report.md` and `report.html`, in `out`.

    `axes` are the two benchmarks of the front, by default those in sharpest conflict; `x` is the
    full key of the swept setting that scores are shown against; `claim` is what was fixed before.
    """
    if not report.runs.jobs:
        return
    from aim_exp.report import plots
    from aim_exp.report.context import make_context
    from aim_exp.report.csv_files import write_csvs
    from aim_exp.report.files import write_text
    from aim_exp.report.html import write_html
    from aim_exp.report.html.items import write_items
    from aim_exp.report.paper import Paper
    from aim_exp.report.replicates import NOTHING_FIXED
    from aim_exp.report.tables import write_tables
    from aim_exp.report.text import render

    paper, claim = paper or Paper(), claim or NOTHING_FIXED
    write_csvs(report, differences, out, claim)
    plots.draw(report, out, axes, x, paper)
    tables = [path.relative_to(out) for path in write_tables(report, out, paper, differences)]
    context = make_context(report, differences, tables, axes, x, running=running, claim=claim)
    write_text(out / PAGE, render("report.md", context=context))
    write_items(report, out)
    write_html(context, report, out / HTML, axes, x)


def bundle(report: Report, site: Path, differences: Sequence[Differences], **chosen: Any) -> None:
    """The same as a folder that any static host serves: its page is `index.html`."""
    write(report, site, differences, **chosen)
    (site / HTML).replace(site / "index.html")


def _report(*directories: Path) -> Report:
    from aim_exp.report.load import load
    from aim_exp.report.rows import make_report

    return make_report(load(*directories))
