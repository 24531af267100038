"""`report.html`: the whole report as one file that asks no server for anything.

Python computes all that is shown (`data`, and the context that report.md shares); the page's script
sorts, filters and chooses, and Observable Plot, which the page carries inside, draws.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from aim_exp.report import plots
from aim_exp.report.context import Context
from aim_exp.report.html.data import KEY, figure_data
from aim_exp.report.rows import margin_words
from aim_exp.report.tables.table import STAR, Table

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

    axes = charts.planes[0].axes if charts.planes else None
    return replace(
        context,
        standings=tuple(
            replace(each, leaderboard=each.leaderboard and cut(each.leaderboard))
            for each in context.standings
        ),
        compared=tuple(
            replace(each, table=cut(each.table), sentences=each.sentences[:most])
            for each in context.compared
        ),
        runs=tuple(run for run in context.runs if run.job.folder in shown),
        charts=plots.make_charts(replace(report, groups=groups), axes, charts.x),
    )


@cache
def environment() -> Environment:
    """Where the page's templates are."""
    made = Environment(
        loader=PackageLoader("aim_exp.report.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["code"] = _code
    made.globals |= {"key_digits": KEY, "star": STAR}
    return made


def _render(context: Context, most: int | None = None) -> str:
    data = figure_data(context.charts)
    return (
        environment()
        .get_template("report.html")
        .render(
            anchors={run.job.title: run.anchor for run in context.runs},
            has_items=bool(data and data["items"]),
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
