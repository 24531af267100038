"""`report.html`: the whole report as one file that asks no server for anything.

Python computes all that is shown (`data`, and the context that report.md shares); the page's script
sorts, filters and chooses, and Observable Plot, which the page carries inside, draws.
"""

from __future__ import annotations

import re
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
from aim_exp.report.tables.table import Table

Axes = tuple[str, str]


def write_html(
    context: Context, report: Report, path: Path, axes: Axes | None = None, x: str = OMEGA
) -> Path:
    """Write the page; its figures first show the benchmarks `axes` and the swept setting `x`.

    AimError if an axis is no benchmark here.
    """
    text = render(context, report, axes, x)
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def render(context: Context, report: Report, axes: Axes | None = None, x: str = OMEGA) -> str:
    """The page as text. Whatever comes from a run is escaped, in the HTML and in the JSON."""
    environment = Environment(
        loader=PackageLoader("aim_exp.report.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": _code, "table": _table, "sentences": _sentences}
    data = figure_data(report, axes, x)
    return environment.get_template("report.html").render(
        context=context,
        data=data,
        benchmarks=report.benchmarks,
        captions=plots.page_captions(report),
        style=_file("assets", "report.css"),
        script=_file("assets", "report.js"),
        libraries=[_file("vendor", name) for name in ("d3.min.js", "plot.min.js")] if data else [],
    )


def _code(text: str) -> Markup:
    """Words between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _table(table: Table, labelled_by: str, sorted_by: str = "") -> Markup:
    return Markup(as_html(table, sorted_by=sorted_by, labelled_by=labelled_by))


def _sentences(table: Table) -> str:
    """What explains it, in one paragraph."""
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in table.explained)


def _file(folder: str, name: str) -> Markup:
    """As it is; no text in it may end the element that carries it."""
    text = (files("aim_exp.report.html") / folder / name).read_text(encoding="utf-8")
    return Markup(text.replace("</script", r"<\/script"))
