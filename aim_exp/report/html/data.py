"""What the page's figures show, as plain data: its script chooses from it, and draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aim_exp.report.html.items import items_data
from aim_exp.report.plots import Charts
from aim_exp.report.plots.dose import Profile, dose_looks, kinds_shown
from aim_exp.report.plots.saliency import SaliencySpread
from aim_exp.report.plots.series import OMEGA, Series, Sweep, is_scored
from aim_exp.report.plots.style import INK, MEMBER, Look, Name, legend, outline
from aim_exp.report.rows import AVERAGE, GAIN, Report, Row
from aim_exp.report.tables.html import KEY

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

    def plain(self) -> list[dict[str, Any]]:
        return [_plain_look(look) for look in self.looks]


def figure_data(charts: Charts) -> dict[str, Any] | None:
    """All figures; rows are named by their position. None where there is nothing to draw."""
    report = charts.report
    rows = [row for group in report.groups for row in group.rows if is_scored(row)]
    if not (rows or charts.saliency or charts.profiles):
        return None
    planes, sweeps, looks = charts.planes, list(charts.sweeps.values()), _Looks()
    quantities = (AVERAGE, GAIN, *report.benchmarks)
    groups = [group.number for group in report.groups]
    position = {row.key: number for number, row in enumerate(rows)}
    own = {row.key: each.look for each in reversed(sweeps[0].series) for row in each.path}
    return {
        "quantities": [
            {"name": name, "unit": "" if name == GAIN else "%", "digits": 3 if name == GAIN else 1}
            for name in quantities
        ],
        "first": len(quantities) - len(report.benchmarks),
        "groups": [group.title for group in report.groups],
        "rows": [
            _row(row, number, quantities, looks.number(own.get(row.key, Look(INK, MEMBER))))
            | {"settings": {report.short(name): text for name, text in row.settings.items()}}
            for number, group in enumerate(report.groups)
            for row in group.rows
            if is_scored(row)
        ],
        "filters": _filters(report),
        "axes": [report.benchmarks.index(axis) for axis in planes[0].axes] if planes else None,
        "first_sweep": _first(sweeps, charts.x),
        "sweeps": [_sweep(each, groups, position, looks) for each in sweeps],
        "dose": _dose(charts.profiles, looks),
        "saliency": _saliency(charts.saliency),
        "looks": looks.plain(),
        "items": items_data(report),
    }


def _first(sweeps: Sequence[Sweep], x: str) -> int:
    """That of `x`, but one that shows something."""
    order = sorted(range(len(sweeps)), key=lambda i: (
        not sweeps[i].is_worth_drawing, sweeps[i].axis.key != x, i
    ))  # fmt: skip
    return order[0]


def _row(row: Row, group: int, quantities: Sequence[str], look: int) -> dict[str, Any]:
    """Percent, but for the gain; `draws` by quantity where there are several."""
    factors = {name: 1.0 if name == GAIN else 100.0 for name in quantities}
    estimates = [(row.estimates.get(name), factor) for name, factor in factors.items()]
    return {
        "key": row.key[:KEY],
        "label": row.label + (f" (n = {row.n})" if row.n > 1 else ""),
        "role": row.role,
        "group": group,
        "look": look,
        "hollow": row.role == "reference" or (row.role == "merged" and not row.relaxed),
        "values": [None if e is None else round(f * e.mean, 4) for e, f in estimates],
        "errors": [
            None if e is None or e.stderr is None else round(f * e.stderr, 4) for e, f in estimates
        ],
        "draws": [
            [] if e is None or len(e.values) < 2 else [round(f * value, 4) for value in e.values]
            for e, f in estimates
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
            shown[report.short(key)] = sorted(values, key=_order)
    return shown


def _order(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("-inf"), text


def _sweep(
    shown: Sweep, groups: list[int], position: dict[str, int], looks: _Looks
) -> dict[str, Any]:
    axis = shown.axis
    styles = {(each.method, each.setting): each.look for each in shown.series}
    return {
        "title": axis.title,
        "limits": axis.limits,
        "ticks": list(axis.ticks.items()),
        "values": sorted(axis.places, key=axis.places.__getitem__),
        "drawn": shown.is_worth_drawing,
        "series": [
            _series(each, groups.index(each.group.number), position, looks) for each in shown.series
        ],
        "legend": looks.legend(styles),
    }


def _series(each: Series, group: int, position: dict[str, int], looks: _Looks) -> dict[str, Any]:
    return {
        "group": group,
        "names": [each.method, each.setting],
        "look": looks.number(each.look),
        "rows": [position[row.key] for row in each.rows],
        "places": [round(place, 5) for place in each.places],
        "level": position[each.level.key] if each.level else None,
        "level_place": each.level_place,
    }


def _dose(shown: Sequence[Profile], looks: _Looks) -> dict[str, Any] | None:
    if not shown:
        return None
    styles = dose_looks(shown)
    return {
        "kinds": kinds_shown(shown),
        "legend": looks.legend(styles),
        "ranges": any(profile.ranges for profile in shown),
        "profiles": [
            {
                "label": " ".join(
                    filter(None, (*profile.name, profile.omega and f"omega={profile.omega}"))
                ),
                "omega": profile.omega,
                "line": list(styles).index(profile.name),
                "look": looks.number(styles[profile.name]),
                "kept": {kind: round(share, 5) for kind, share in profile.kept.items()},
                "outputs": {kind: round(share, 5) for kind, share in profile.outputs.items()},
                "mean_r": {kind: round(share, 5) for kind, share in profile.mean_r.items()},
                "ranges": profile.ranges,
            }
            for profile in shown
        ],
    }


def _saliency(shown: SaliencySpread | None) -> dict[str, Any] | None:
    if shown is None:
        return None
    return {
        "channels": [round(float(share), 6) for share in shown.channels],
        "inputs": [
            {
                "name": each.name,
                "falling": [round(float(share), 5) for share in each.falling],
                "layers": [
                    ["none" if layer is None else layer, round(mean, 5)]
                    for layer, mean in each.layers.items()
                ],
            }
            for each in shown.inputs
        ],
    }


def _plain_look(look: Look) -> dict[str, Any]:
    edge, part = outline(look.marker, look.fill)
    ink = look.colour == INK  # the page's own
    return {
        "colour": None if ink else look.colour,
        "dark": None if ink else _lifted(look.colour),
        "edge": edge,
        "part": part,
        "dash": list(look.dash),
    }


def _lifted(colour: str) -> str:
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * LIFT):02x}" for part in parts)
