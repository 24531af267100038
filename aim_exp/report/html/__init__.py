"""`report.html`: the whole report as one file that asks no server for anything.

Python computes all that is shown (`data`, and the context that report.md shares); the page's script
sorts, filters and chooses, and Observable Plot, which the page carries inside, draws.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from aim_exp.report import plots
from aim_exp.report.context import Context
from aim_exp.report.files import write_atomically
from aim_exp.report.html.data import figure_data
from aim_exp.report.plots.series import OMEGA
from aim_exp.report.rows import Report
from aim_exp.report.tables.html import as_html
from aim_exp.report.tables.table import Row, Table

Axes = tuple[str, str]
LIMIT = 2_000_000
"""Bytes of a page."""
FEWER = (1000, 700, 500, 400, 300, 200, 100, 50, 20, 10, 5)
"""Merges of a group that a page shows, where all would be too much for it."""


def write_html(
    context: Context, report: Report, path: Path, axes: Axes | None = None, x: str = OMEGA
) -> Path:
    """Write the page; its figures first show the benchmarks `axes` and the swept setting `x`.

    AimError if an axis is no benchmark here.
    """
    text = render(context, report, axes, x)
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def render(context: Context, report: Report, axes: Axes | None = None, x: str = OMEGA) -> str:
    """The page as text. Whatever comes from a run is escaped, in the HTML and in the JSON.

    What is larger than `LIMIT` has fewer merges: of each group the best ones, and it says so.
    """
    text = _render(context, report, axes, x)
    for most in FEWER:
        if len(text.encode()) <= LIMIT:
            break
        text = _render(*_best(context, report, most), axes, x, most)
    return text


def _best(context: Context, report: Report, most: int) -> tuple[Context, Report]:
    """The same with the `most` best merges of each group, and as many runs without a score."""
    groups = tuple(replace(group, merges=group.ranked[:most]) for group in report.groups)
    keys = {row.key for group in groups for row in group.rows}
    shown = {job.folder for group in groups for row in group.merges for job in row.jobs}
    early = [run for run in context.runs if run.job.ended_early]
    shown |= {run.job.folder for run in early[:most]}

    def cut(table: Table) -> Table:
        sections = (tuple(row for row in section if row.key in keys) for section in table.sections)
        return replace(table, sections=tuple(filter(None, sections)))

    standings = (
        replace(each, leaderboard=each.leaderboard and cut(each.leaderboard))
        for each in context.standings
    )
    compared = (
        replace(each, table=cut(each.table), sentences=each.sentences[:most])
        for each in context.compared
    )
    runs = tuple(run for run in context.runs if run.job.folder in shown)
    few = replace(context, standings=tuple(standings), compared=tuple(compared), runs=runs)
    return few, replace(report, groups=groups)


def _render(
    context: Context, report: Report, axes: Axes | None, x: str, most: int | None = None
) -> str:
    environment = Environment(
        loader=PackageLoader("aim_exp.report.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = figure_data(report, axes, x)
    anchors = {run.job.title: run.anchor for run in context.runs}
    environment.filters |= {
        "code": _code,
        "table": partial(_table, anchors, bool(data and data["items"])),
        "sentences": _sentences,
    }
    return environment.get_template("report.html").render(
        context=context,
        data=data,
        benchmarks=report.benchmarks,
        captions=plots.page_captions(report),
        most=most,
        style=_file("assets", "report.css"),
        script=_file("assets", "report.js"),
        libraries=[_file("vendor", name) for name in ("d3.min.js", "plot.min.js")] if data else [],
    )


def _code(text: str) -> Markup:
    """Words between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _table(
    anchors: Mapping[str, str],
    has_items: bool,
    table: Table,
    labelled_by: str,
    sorted_by: str = "",
) -> Markup:
    """In the column of jobs, those that the page has lead to what it says of them.

    Differences lead to the items where those are at hand.
    """
    if not has_items:
        table = table.map_cells(lambda cell: replace(cell, link="") if cell.link else cell)

    def with_links(row: Row) -> Row:
        names = row.cells[0].text.split(", ")
        known = {name: anchors[name] for name in names if name in anchors}
        return replace(row, links=known) if len(known) == len(names) else row

    if table.columns[0].heading == "job":
        table = table.map_rows(with_links)
    return Markup(as_html(table, sorted_by=sorted_by, labelled_by=labelled_by))


def _sentences(table: Table) -> str:
    """What explains it, in one paragraph."""
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in table.explained)


def _file(folder: str, name: str) -> Markup:
    """As it is; no text in it may end the element that carries it."""
    text = (files("aim_exp.report.html") / folder / name).read_text(encoding="utf-8")
    return Markup(text.replace("</script", r"<\/script"))
