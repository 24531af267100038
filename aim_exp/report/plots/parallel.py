"""Parallel coordinates of a sweep for trackers: a plotly figure in plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aim_exp.report.plots.series import METHOD, NULL, OMEGA, as_number, is_scored
from aim_exp.report.plots.style import INK, method_colours
from aim_exp.report.rows import AVERAGE, GAIN, Report, Row

PLAIN = 1.0
"""Where a plain merge stands on the axis of omega: omega 1 gives the same model."""
TITLE = "A line per merge, in its method's colour; scores in percent"
MARGIN = {"l": 110, "r": 50, "t": 100, "b": 30}
"""Pixels: the names of methods are written left of the first axis."""


def parallel_coordinates(report: Report) -> dict[str, Any] | None:
    """A line per scored merge: what was varied, then what came of it, means over seeds.

    Benchmarks that not all were scored on take no part; None where there are less than two merges.
    """
    rows = [row for row in report.merges if is_scored(row)]
    if len(rows) < 2:
        return None
    colours = {method: colour for method, (colour, _) in method_colours(
        dict.fromkeys(row.method for row in rows)).items()}  # fmt: skip
    order, last = list(colours), max(len(colours) - 1, 1)
    scale = [[place / last, colour] for place, colour in enumerate(colours.values())]
    line = {
        "color": [order.index(row.method) for row in rows],
        "colorscale": scale if len(scale) > 1 else [scale[0], [1, scale[0][1]]],
        "cmin": 0,
        "cmax": last,
    }
    settings = [_setting(report, key, rows) for key in report.varying]
    return {
        "data": [
            {
                "type": "parcoords",
                "line": line,
                "dimensions": [*settings, *_quantities(report, rows)],
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


def _setting(report: Report, key: str, rows: Sequence[Row]) -> dict[str, Any]:
    """An axis with a tick per value; numbers at their places, texts one after the other."""
    texts = [row.method if key == METHOD else row.settings.get(key, "–") for row in rows]
    numbers = {t: PLAIN if (key, t) == (OMEGA, NULL) else as_number(t) for t in texts}
    places = {
        text: float(index) if None in numbers.values() else number
        for index, (text, number) in enumerate(numbers.items())
    }
    return {
        "label": report.short(key),
        "values": [places[text] for text in texts],
        "tickvals": list(places.values()),
        "ticktext": list(places),
    }


def _quantities(report: Report, rows: Sequence[Row]) -> list[dict[str, Any]]:
    names = (AVERAGE, GAIN, *report.benchmarks)
    known = [name for name in names if all(name in row.estimates for row in rows)]
    return [
        {
            "label": name,
            "values": [
                row.estimates[name].mean
                if name == GAIN
                else round(100 * row.estimates[name].mean, 3)
                for row in rows
            ],
        }
        for name in known
    ]
