"""`report.html`: the whole report as one file that asks no server for anything.

Python computes all that is shown (`tables`, `figures`, `comparison`); the page's script only
sorts, filters and switches, and plotly.js, which the page carries inside, draws.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from aim_exp.report.compare.comparison import Comparison
from aim_exp.report.compare.halves import choice_sentences
from aim_exp.report.files import write_atomically
from aim_exp.report.html.comparison import sentences, twin_groups
from aim_exp.report.html.figures import control_mark, figure_data, method_marks
from aim_exp.report.html.tables import (
    above,
    filters,
    leaderboards,
    population_tables,
    runs,
)
from aim_exp.report.notes import notes
from aim_exp.report.plots import Axes
from aim_exp.report.results import Results
from aim_exp.report.studies import seeds_repeat
from aim_exp.report.summary import (
    DOTS,
    GAIN_MEANS,
    counts,
    origin,
    path_words,
    plain_words,
    shared_settings,
    title,
    when,
)
from aim_exp.statistics import LEVEL


def write_html(
    results: Results, path: Path, comparison: Comparison | None, axes: Axes | None = None
) -> Path:
    """Write the page; `axes` are the benchmarks that its Pareto front shows at first.

    AimError if an axis is no benchmark here.
    """
    text = render(results, comparison, axes)
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def render(results: Results, comparison: Comparison | None, axes: Axes | None = None) -> str:
    """The page as text. Whatever comes from a run is escaped, in the HTML and in the JSON."""
    environment = Environment(
        loader=PackageLoader("aim_exp.report.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    figures = figure_data(results, axes)
    sections = runs(results)
    return environment.get_template("report.html").render(
        title=title(results),
        about=[counts(results), *when(results)],
        above=[above(results, comparison)] if comparison else [],
        filters=filters(results),
        marks=method_marks(results),
        controls=control_mark(results),
        leaderboards=leaderboards(results),
        populations=population_tables(results),
        comparison=comparison,
        groups=twin_groups(results, comparison) if comparison else [],
        sentences=sentences(comparison) if comparison else [],
        benchmarks=results.benchmarks,
        figures=figures,
        data=figures and asdict(figures),
        dots=f" {DOTS}" if seeds_repeat(results) else "",
        failed=[run for run in sections if run.ended],
        notes=[*notes(results), *choice_sentences(results)],
        shared=shared_settings(results),
        runs=sections,
        origin=origin(results),
        names=results.sweeps,
        plain=results.has_plain,
        paths=path_words(results),
        plain_line=plain_words(results),
        gain_means=GAIN_MEANS,
        level=LEVEL,
        style=_asset("report.css"),
        script=_asset("report.js"),
        plotly=_plotly() if figures else "",
    )


def _code(text: str) -> Markup:
    """Words between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _asset(name: str) -> str:
    return (files("aim_exp.report.html") / "assets" / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """plotly.js whole; no text in it may end the element that carries it."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", r"<\/script")
