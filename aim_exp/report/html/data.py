"""What the page's figures show, as plain data: its script chooses from it, and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aim_exp.report.html.items import items_data
from aim_exp.report.plots import Charts
from aim_exp.report.plots.dose import Profile, dose_looks, has_layers, kinds_shown
from aim_exp.report.plots.saliency import Input, SaliencySpread
from aim_exp.report.plots.series import OMEGA, Sweep, as_number, is_scored
from aim_exp.report.plots.style import INK, MEMBER, Look, Name, legend, outline
from aim_exp.report.rows import AVERAGE, GAIN, Group, Report, Row
from aim_exp.report.units import unit

KEY = 16
"""Digits of a row's key on the page."""
LIFT = 0.28
"""Of white, in the colours on dark paper."""
MOST = 8
"""Values of a setting that can be filtered by; of method and omega any number."""
ALWAYS = ("method", OMEGA)


class _Looks:
    """Every look that is used, once."""

    def __init__(self) -> None:
        self.looks: dict[Look, int] = {}

    def number(self, look: Look) -> int:
        return self.looks.setdefault(look, len(self.looks))

    def legend(self, styles: dict[Name, Look]) -> list[dict[str, Any]]:
        return [
            {"name": name, "look": self.number(look), "patch": is_patch}
            for name, look, is_patch in legend(styles)
        ]


def figure_data(charts: Charts) -> dict[str, Any] | None:
    """All figures; rows are named by their position. None where there is nothing to draw."""
    report, looks = charts.report, _Looks()
    placed = [(group, row) for group in report.groups for row in group.rows if is_scored(row)]
    if not (placed or charts.saliency or charts.profiles):
        return None
    sweeps = list(charts.sweeps.values())
    order = [(not each.is_worth_drawing, each.axis.key != charts.x) for each in sweeps]
    quantities = (AVERAGE, GAIN, *report.benchmarks)
    position = {row.key: number for number, (_, row) in enumerate(placed)}
    own = {row.key: each.look for each in reversed(sweeps[0].series) for row in each.path}
    axes = charts.planes[0].axes if charts.planes else ()
    data = {
        "quantities": [
            {"name": name, "unit": "" if name == GAIN else "%", "digits": unit(name).digits}
            for name in quantities
        ],
        "first": len(quantities) - len(report.benchmarks),
        "groups": [group.title for group in report.groups],
        "rows": [
            _row(group, row, quantities)
            | {"group": group.number - 1, "look": looks.number(own.get(row.key, Look(INK, MEMBER)))}
            | {"settings": {report.short(name): text for name, text in row.settings.items()}}
            for group, row in placed
        ],
        "filters": _filters(report),
        "axes": [report.benchmarks.index(axis) for axis in axes] or None,
        "first_sweep": order.index(min(order)),
        "sweeps": [_sweep(each, position, looks) for each in sweeps],
        "dose": _dose(charts.profiles, looks) if charts.profiles else None,
        "saliency": _saliency(charts.saliency) if charts.saliency else None,
        "items": items_data(report),
    }
    return _rounded(data | {"looks": [_plain_look(look) for look in looks.looks]})


def _rounded(value: Any) -> Any:
    """Plain data, numbers with as many digits as a figure can show."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_rounded(each) for each in value]
    return value


def _row(group: Group, row: Row, quantities: Sequence[str]) -> dict[str, Any]:
    """Its numbers by quantity, in the unit of its axis; `draws` where there are several."""
    estimates = [(row.estimates.get(name), unit(name).factor) for name in quantities]
    return {
        "key": row.key[:KEY],
        "label": row.label + (f" (n = {row.n})" if row.n > 1 else ""),
        "role": row.role,
        "hollow": row.role == "reference" or (row.role == "merged" and not row.relaxed),
        "values": [e and factor * e.mean for e, factor in estimates],
        "errors": [
            None if e is None or (margin := group.margin(e)) is None else factor * margin
            for e, factor in estimates
        ],
        "draws": [
            [] if e is None or len(e.values) < 2 else [factor * value for value in e.values]
            for e, factor in estimates
        ]
        if row.n > 1
        else None,
    }


def _filters(report: Report) -> dict[str, list[str]]:
    """By short name, values in order, words before numbers; one value is no filter."""
    merges = [row for row in report.merges if is_scored(row)]
    shown = {}
    for key in report.varying:
        values = {row.settings[key] for row in merges if key in row.settings}
        if len(values) > 1 and (key in ALWAYS or len(values) <= MOST):
            numbers = {text: as_number(text) for text in values}
            words = sorted(text for text in values if numbers[text] is None)
            others = sorted(values - {*words}, key=lambda text: numbers[text] or 0.0)
            shown[report.short(key)] = [*words, *others]
    return shown


def _sweep(shown: Sweep, position: dict[str, int], looks: _Looks) -> dict[str, Any]:
    axis = shown.axis
    return {
        "title": axis.title,
        "limits": axis.limits,
        "ticks": list(axis.ticks.items()),
        "values": sorted(axis.places, key=axis.places.__getitem__),
        "shown": shown.is_worth_drawing,
        "series": [
            {
                "group": each.group.number - 1,
                "names": each.names,
                "look": looks.number(each.look),
                "rows": [position[row.key] for row in each.rows],
                "places": each.places,
                "level": position[each.level.key] if each.level else None,
                "level_place": each.level_place,
            }
            for each in shown.series
        ],
        "legend": looks.legend({each.names: each.look for each in shown.series}),
    }


def _dose(shown: Sequence[Profile], looks: _Looks) -> dict[str, Any]:
    styles = dose_looks(shown)
    return {
        "kinds": kinds_shown(shown),
        "has_layers": has_layers(shown),
        "legend": looks.legend(styles),
        "profiles": [
            vars(profile)
            | {
                "label": " ".join(
                    filter(None, (*profile.name, profile.omega and f"omega={profile.omega}"))
                ),
                "line": list(styles).index(profile.name),
                "look": looks.number(styles[profile.name]),
            }
            for profile in shown
        ],
    }


def _saliency(shown: SaliencySpread) -> dict[str, Any]:
    def layers(each: Input) -> list[tuple[int | str, float]]:
        return [("none" if n is None else n, mean) for n, mean in each.layers.items()]

    inputs = [vars(each) | {"layers": layers(each)} for each in shown.inputs]
    return {"channels": shown.channels, "inputs": inputs}


def _plain_look(look: Look) -> dict[str, Any]:
    edge, part = outline(look.marker, look.fill)
    ink = look.colour == INK  # the page's own
    parts = (int(look.colour[i : i + 2], 16) for i in (1, 3, 5))
    lifted = "#" + "".join(f"{round(part + (255 - part) * LIFT):02x}" for part in parts)
    return {
        "colour": None if ink else look.colour,
        "dark": None if ink else lifted,
        "edge": edge,
        "part": part,
        "dash": list(look.dash),
    }
