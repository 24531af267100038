"""What a relaxation left of the merges' change, by kind of module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from aim_exp.report.doses import ALL, dose_of
from aim_exp.report.plots.canvas import legend_below, name_looks
from aim_exp.report.plots.series import OMEGA, setting_words
from aim_exp.report.plots.style import GREY, INK, Look, Name, looks
from aim_exp.report.rows import Report
from aim_exp.store.records import Dose

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

Doses = Mapping[str, Dose]
"""By kind of module and `ALL`."""


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
        together: dict[tuple[Name, str], list[Doses]] = {}
        for group, row, dose in relaxed:
            name = row.method, setting_words(report, group, row, hidden)
            together.setdefault((name, row.settings.get(OMEGA, "")), []).append(dose)
        if len({name for name, _ in together}) <= MOST:
            break
    return [_profile(name, omega, doses) for (name, omega), doses in together.items()]


def _profile(name: Name, omega: str, doses: Sequence[Doses]) -> Profile:
    def shares(field: str) -> dict[str, list[float]]:
        return collected(
            {kind: getattr(dose, field) for kind, dose in each.items()} for each in doses
        )

    kept, mean_r, outputs = map(shares, ("norm", "mean_r", "outputs"))
    return Profile(
        name,
        omega,
        kept=_means(kept),
        mean_r=_means(mean_r),
        outputs=_means(outputs),
        ranges={kind: (min(v), max(v)) for kind, v in kept.items() if len(doses) > 1},
    )


def _means(shares: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {kind: fmean(values) for kind, values in shares.items()}


def collected(tables: Iterable[Mapping[str, float | None]]) -> dict[str, list[float]]:
    """By kind of module, the values of all that have one."""
    values: dict[str, list[float]] = {}
    for table in tables:
        for kind, value in table.items():
            if value is not None:
                values.setdefault(kind, []).append(value)
    return values


def kinds_shown(shown: Sequence[Profile]) -> list[str]:
    """The kinds of modules that were relaxed: those kept most first, `ALL` before them."""
    kept = collected(profile.kept for profile in shown)
    return [ALL, *sorted(kept.keys() - {ALL}, key=lambda kind: (-fmean(kept[kind]), kind))]


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
