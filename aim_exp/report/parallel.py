"""Parallel coordinates of a sweep's runs, as a plotly figure in plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aim_exp.report.figures.style import INK, method_style
from aim_exp.report.models import Model
from aim_exp.report.repeats import AVERAGE, GAIN
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import short_name

PLAIN = 1.0
"""Where a plain merge stands on the axis of omega: omega 1 gives the same model."""
TITLE = "A line per run, in its method's colour; scores in percent"
MARGIN = {"l": 110, "r": 50, "t": 100, "b": 30}
"""Pixels: the names of methods are written left of the first axis."""

Scored = Sequence[tuple[Job, Model]]


def parallel_coordinates(results: Results) -> dict[str, Any] | None:
    """A line per scored run, in its method's colour: what was varied, then what came of it.

    Scores are in percent. Benchmarks that not all runs have been scored on take no part; None
    where there are less than two runs.
    """
    scored = [(job, job.merged) for job in results.scored if job.merged]
    if len(scored) < 2:
        return None
    methods = list(dict.fromkeys(job.record.method for job, _ in scored))
    colours = [method_style(method)[0] for method in methods]
    last = max(len(methods) - 1, 1)
    line = {
        "color": [methods.index(job.record.method) for job, _ in scored],
        "colorscale": [[i / last, colour] for i, colour in enumerate(colours)]
        if len(methods) > 1
        else [[0, colours[0]], [1, colours[0]]],
        "cmin": 0,
        "cmax": last,
    }
    settings = [_setting(name, [job for job, _ in scored]) for name in results.varying]
    return {
        "data": [
            {
                "type": "parcoords",
                "line": line,
                "dimensions": [*settings, *_quantities(results, scored)],
                "labelfont": {"color": INK, "size": 12},
                "tickfont": {"color": INK, "size": 11},
                "rangefont": {"color": "rgba(0,0,0,0)"},  # the ticks say it already
            }
        ],
        "layout": {
            "title": {"text": TITLE, "font": {"size": 14}},
            "margin": MARGIN,
            "font": {"color": INK, "size": 12},
        },
    }


def _setting(name: str, jobs: Sequence[Job]) -> dict[str, Any]:
    """An axis with a tick per value; numbers at their places, texts one after the other."""
    texts = [job.settings.get(name, "–") for job in jobs]
    numbers = {text: _number(name, text) for text in texts}
    places = {
        text: index if None in numbers.values() else number
        for index, (text, number) in enumerate(numbers.items())
    }
    return {
        "label": short_name(name),
        "values": [places[text] for text in texts],
        "tickvals": list(places.values()),
        "ticktext": list(places),
    }


def _number(name: str, text: str) -> float | None:
    if name == "omega" and text == "null":
        return PLAIN
    try:
        return float(text)
    except ValueError:
        return None


def _quantities(results: Results, scored: Scored) -> list[dict[str, Any]]:
    columns: dict[str, list[float | None]] = {
        AVERAGE: [_percent(model.average.value) if model.average else None for _, model in scored],
        GAIN: [job.record.hypervolume_gain for job, _ in scored],
    }
    for name in results.benchmarks:
        scores = [model.scores.get(name) for _, model in scored]
        columns[name] = [_percent(score.value) if score else None for score in scores]
    return [
        {"label": name, "values": values} for name, values in columns.items() if None not in values
    ]


def _percent(score: float) -> float:
    return round(100 * score, 3)
