"""What a relaxation left of the merges' change, by kind of module and by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from aim_exp.report.doses import ALL, dose_by_layer, dose_of
from aim_exp.report.grouped import grouped
from aim_exp.report.plots.canvas import legend_below, name_looks
from aim_exp.report.plots.series import OMEGA, setting_words
from aim_exp.report.plots.style import GREY, INK, Look, Name, looks
from aim_exp.report.rows import Report
from aim_exp.store.run_record import Dose

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

MOST = 7
"""Lines of a figure; of more, a method's settings are taken together."""
ROW = 0.155
"""Inches for a kind of module."""
PLACE = 0.022
"""Inches at least for each of the places in a row."""
DODGE = 0.7
"""Of a row's height, over which what is in it is spread."""
CHARACTER = 0.03
"""Of the axis, for each character of an omega above."""
MEAN_R, RANGE = "mean r", "range over settings"
WHISKER = {"linewidth": 1.4, "alpha": 0.6, "solid_capstyle": "butt"}

Part = TypeVar("Part", str, int)
"""A kind of module, or a layer."""
Doses = tuple[Mapping[str, Dose], Mapping[int, Dose]]
"""By kind of module and `ALL`, and by layer."""


@dataclass(frozen=True)
class Profile:
    """By kind of module and `ALL`; means over seeds."""

    name: Name
    """Method, and what else varies, omega apart."""
    omega: str
    """Empty where it plays no part."""
    kept: Mapping[str, float]
    """Norm of the delta after the relaxation over before."""
    mean_r: Mapping[str, float]
    outputs: Mapping[str, float]
    """Share of the change of outputs, by base's second moments."""
    ranges: Mapping[str, tuple[float, float]]
    """Least and greatest share kept, where this is the mean over a method's settings."""
    kept_by_layer: Mapping[int, float]
    outputs_by_layer: Mapping[int, float]


def profiles(report: Report) -> list[Profile]:
    """One for each method, omega and what else varies, but for the seeds; scored or not.

    Where that is more than can be told apart, the settings of a method are taken together.
    """
    relaxed = [
        (group, row, dose)
        for group in report.groups
        for row in group.merges
        if row.relaxed and ALL in (dose := dose_of(row)) and dose[ALL].norm is not None
    ]
    of_methods = [name for name in report.varying if name.startswith("method.")]
    for hidden in ([OMEGA], [OMEGA, *of_methods]):
        names = (
            (row.method, setting_words(report, group, row, hidden)) for group, row, _ in relaxed
        )
        together = grouped(
            ((name, row.settings.get(OMEGA, "")), (dose, dose_by_layer(row)))
            for name, (_, row, dose) in zip(names, relaxed, strict=True)
        )
        if len({name for name, _ in together}) <= MOST:
            break
    return [_profile(name, omega, doses) for (name, omega), doses in together.items()]


def _profile(name: Name, omega: str, doses: Sequence[Doses]) -> Profile:
    kinds, layers = zip(*doses, strict=True)
    kept = _shares(kinds, "norm")
    return Profile(
        name,
        omega,
        kept=_means(kept),
        mean_r=_means(_shares(kinds, "mean_r")),
        outputs=_means(_shares(kinds, "outputs")),
        ranges={kind: (min(v), max(v)) for kind, v in kept.items() if len(doses) > 1},
        kept_by_layer=_means(_shares(layers, "norm")),
        outputs_by_layer=_means(_shares(layers, "outputs")),
    )


def _shares(tables: Iterable[Mapping[Part, Dose]], field: str) -> dict[Part, list[float]]:
    return collected({part: getattr(dose, field) for part, dose in t.items()} for t in tables)


def _means(shares: Mapping[Part, Sequence[float]]) -> dict[Part, float]:
    return {part: fmean(values) for part, values in shares.items()}


def collected(tables: Iterable[Mapping[Part, float | None]]) -> dict[Part, list[float]]:
    """By part, the values of all that have one."""
    pairs = (pair for table in tables for pair in table.items())
    return grouped((part, value) for part, value in pairs if value is not None)


def kinds_shown(shown: Sequence[Profile]) -> list[str]:
    """The kinds of modules that were relaxed: those kept most first, `ALL` before them."""
    kept = collected(profile.kept for profile in shown)
    return [ALL, *sorted(kept.keys() - {ALL}, key=lambda kind: (-fmean(kept[kind]), kind))]


def has_layers(shown: Sequence[Profile]) -> bool:
    """Whether each is known by layer."""
    return bool(shown) and all(profile.kept_by_layer for profile in shown)


def dose_looks(shown: Sequence[Profile]) -> dict[Name, Look]:
    """By method and setting."""
    return looks(profile.name for profile in shown)


def draw_dose(figure: Figure, shown: Sequence[Profile]) -> None:
    """A row for each kind of module, and in it a place for each method and setting; omegas above.

    Each has its own height in a row, or markers would hide one another.
    """
    kinds, styles = kinds_shown(shown), dose_looks(shown)
    figure.set_figheight(max(ROW, PLACE * len(styles) / DODGE) * (len(kinds) + 1) + 0.95)
    plot = figure.subplots()
    name_looks(plot, styles, joined=False)
    plot.set_yticks(range(-1, len(kinds)), ["omega", *kinds])
    plot.tick_params(axis="y", length=0)
    plot.set(ylim=(len(kinds) - 0.4, -1.6), xlabel="share of the delta kept")
    plot.axhline(-0.5, color=INK, linewidth=0.6)
    plot.axhline(0.5, color=INK, linewidth=0.4)
    _draw_mean_r(plot, shown, kinds)
    for number, (name, look) in enumerate(styles.items()):
        shift = DODGE * ((number + 0.5) / len(styles) - 0.5)
        _draw_profiles(plot, [each for each in shown if each.name == name], kinds, look, shift)
    _name_omegas(plot, shown)
    if any(profile.ranges for profile in shown):
        plot.plot([], [], color=GREY, label=RANGE, **WHISKER)
    legend_below(figure, last=[RANGE, MEAN_R])


def draw_layers(figure: Figure, shown: Sequence[Profile]) -> None:
    """A line over the layers for each profile, its omega at the end of it, where there is room."""
    from matplotlib.ticker import MaxNLocator

    plot, styles = figure.subplots(), dose_looks(shown)
    name_looks(plot, styles, joined=True)
    plot.set(xlabel="layer", ylabel="share of the delta kept")
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    ends = {}
    for each in shown:
        look = styles[each.name]
        places = sorted(each.kept_by_layer.items())
        plot.plot(*zip(*places, strict=True), **(look.point | look.line))
        ends[each.omega, places[-1][1]] = places[-1]
    room = CHARACTER * float(np.ptp(plot.get_ylim()))
    taken = -math.inf
    for (omega, share), place in sorted(ends.items(), key=lambda end: end[0][1]):
        if omega and share - room >= taken:
            plot.annotate(omega, place, (6, 0), textcoords="offset points", va="center", fontsize=7)
            taken = share + room
    legend_below(figure)


def _draw_profiles(
    plot: Plot, own: Sequence[Profile], kinds: Sequence[str], look: Look, shift: float
) -> None:
    """Of one method and setting, at every omega."""
    rows = {kind: row + shift for row, kind in enumerate(kinds)}
    for profile in own:
        for kind, ends in profile.ranges.items():
            plot.plot(ends, (rows[kind], rows[kind]), color=look.colour, **WHISKER)
    places = [(share, rows[kind]) for each in own for kind, share in each.kept.items()]
    plot.plot(*zip(*places, strict=True), linestyle="", markersize=4, markeredgewidth=0.5,
              **look.point)  # fmt: skip


def _draw_mean_r(plot: Plot, shown: Sequence[Profile], kinds: Sequence[str]) -> None:
    """Where the deltas would be if they lay on all channels alike."""
    places = {
        (profile.mean_r[kind], row)
        for profile in shown
        for row, kind in enumerate(kinds)
        if kind in profile.mean_r
    }
    plot.plot([x for x, _ in places], [y for _, y in places], "|", color="#999999", markersize=9,
              markeredgewidth=0.9, zorder=1, label=MEAN_R)  # fmt: skip


def _name_omegas(plot: Plot, shown: Sequence[Profile]) -> None:
    """Each above what is kept of all its deltas, where there is room for it."""
    low, high = plot.get_xlim()
    taken = low
    kept = _means(collected({each.omega: each.kept[ALL]} for each in shown))
    for omega, x in sorted(kept.items(), key=lambda pair: pair[1]):
        half = CHARACTER * len(omega) * (high - low) / 2
        if x - half >= taken:
            plot.text(x, -1, omega, ha="center", va="center", fontsize=7)
            taken = x + half
