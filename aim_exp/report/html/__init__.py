"""`report.html`: the whole report as one file that asks no server for anything.

Python computes all that is shown (`data`, and the context that report.md shares); the page's script
sorts, filters and chooses, and Observable Plot, which the page carries inside, draws.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from aim_exp.report import plots
from aim_exp.report.context import Context
from aim_exp.report.html.data import figure_data
from aim_exp.report.rows import margin_words
from aim_exp.report.tables.html import as_html
from aim_exp.report.tables.table import Row, Table

LIMIT = 2_000_000
"""Bytes of a page."""


def render(context: Context) -> str:
    """The page as text. Whatever comes from a run is escaped, in the HTML and in the JSON.

    What is larger than `LIMIT` has fewer merges: of each group the best ones, and it says so.
    """
    text, most = _render(context), len(context.runs)
    fixed = sum(map(len, _assets()["libraries"]))
    while (size := len(text.encode())) > LIMIT and most > 1:
        most = int(0.95 * most * (LIMIT - fixed) / (size - fixed)) or 1
        text = _render(_best(context, most), most)
    return text


def _best(context: Context, most: int) -> Context:
    """The same with the `most` best merges of each group, and as many runs without a score."""
    charts, report = context.charts, context.charts.report
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
    axes = charts.planes[0].axes if charts.planes else None
    return replace(
        context,
        standings=tuple(standings),
        compared=tuple(compared),
        runs=runs,
        charts=plots.make_charts(replace(report, groups=groups), axes, charts.x),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("aim_exp.report.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    return environment


def _render(context: Context, most: int | None = None) -> str:
    data = figure_data(context.charts)
    anchors = {run.job.title: run.anchor for run in context.runs}
    return (
        _environment()
        .get_template("report.html")
        .render(
            table=partial(_table, anchors, bool(data and data["items"])),
            context=context,
            data=data,
            benchmarks=context.charts.report.benchmarks,
            captions=plots.captions(context.charts),
            margin=margin_words(context.charts.report.groups),
            most=most,
            **_assets(),
        )
    )


def _code(text: str) -> Markup:
    """Words between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _table(
    anchors: Mapping[str, str], has_items: bool, table: Table, labelled_by: str, sorted_by: str = ""
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


@cache
def _assets() -> dict[str, Any]:
    return {
        "style": _file("assets", "report.css"),
        "script": _file("assets", "report.js"),
        "libraries": [_file("vendor", name) for name in ("d3.min.js", "plot.min.js")],
    }


def _file(folder: str, name: str) -> Markup:
    """As it is; no text in it may end the element that carries it."""
    text = (files("aim_exp.report.html") / folder / name).read_text(encoding="utf-8")
    return Markup(text.replace("</script", r"<\/script"))
