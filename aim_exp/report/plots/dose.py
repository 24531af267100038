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
from aim_exp.report.rows import Report, Row

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
MEAN_R, RANGE = "mean r", "range over settings"
WHISKER = {"linewidth": 1.4, "alpha": 0.6, "solid_capstyle": "butt"}


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
    together = _by_name(report)
    if len({name for name, _ in together}) > MOST:
        together = _by_name(report, leave_out=("method.",))
    return [_profile(name, omega, rows) for (name, omega), rows in together.items()]


def _by_name(report: Report, leave_out: tuple[str, ...] = ()) -> dict[tuple[Name, str], list[Row]]:
    """By name and omega, the relaxed rows."""
    together: dict[tuple[Name, str], list[Row]] = {}
    for group in report.groups:
        for row in group.merges:
            if row.relaxed and ALL in _means(row, "norm"):
                name = row.method, setting_words(report, group, row, OMEGA, leave_out)
                together.setdefault((name, row.settings.get(OMEGA, "")), []).append(row)
    return together


def _profile(name: Name, omega: str, rows: Sequence[Row]) -> Profile:
    kept = _collected(_means(row, "norm") for row in rows)
    mean_r, outputs = (
        {k: fmean(v) for k, v in _collected(_means(row, field) for row in rows).items()}
        for field in ("mean_r", "outputs")
    )
    return Profile(
        name,
        omega,
        kept={kind: fmean(values) for kind, values in kept.items()},
        mean_r=mean_r,
        outputs=outputs,
        ranges={kind: (min(v), max(v)) for kind, v in kept.items() if len(rows) > 1},
    )


def _means(row: Row, field: str) -> dict[str, float]:
    """By kind of module, where it is known."""
    shares = {kind: getattr(dose, field) for kind, dose in dose_of(row).items()}
    return {kind: share for kind, share in shares.items() if share is not None}


def _collected(tables: Iterable[Mapping[str, float | None]]) -> dict[str, list[float]]:
    """By kind of module, the values of all that have it."""
    found: dict[str, list[float]] = {}
    for table in tables:
        for kind, value in table.items():
            if value is not None:
                found.setdefault(kind, []).append(value)
    return found


def kinds_shown(shown: Sequence[Profile]) -> list[str]:
    """The kinds of modules that were relaxed: those kept most first, `ALL` before them."""
    kept = _collected(profile.kept for profile in shown)
    return [ALL, *sorted(kept.keys() - {ALL}, key=lambda kind: (-fmean(kept[kind]), kind))]


def dose_looks(shown: Sequence[Profile]) -> dict[Name, Look]:
    """By method and setting."""
    return looks(profile.name for profile in shown)


def draw_dose(figure: Figure, shown: Sequence[Profile]) -> None:
    """A row for each kind of module, and in it a place for each method and setting; omegas above.

    Each has its own height in a row, or markers would hide one another.
    """
    kinds, styles = kinds_shown(shown), dose_looks(shown)
    names = list(styles)
    figure.set_figheight(max(ROW, PLACE * len(names) / DODGE) * (len(kinds) + 1) + 0.95)
    plot = figure.subplots()
    name_looks(plot, styles, joined=False)
    plot.set_yticks(range(-1, len(kinds)), ["omega", *kinds])
    plot.tick_params(axis="y", length=0)
    plot.set(ylim=(len(kinds) - 0.4, -1.6), xlabel="share of the delta kept")
    plot.axhline(-0.5, color=INK, linewidth=0.6)
    plot.axhline(0.5, color=INK, linewidth=0.4)
    _draw_mean_r(plot, shown, kinds)
    for profile in shown:
        shift = DODGE * ((names.index(profile.name) + 0.5) / len(names) - 0.5)
        _draw_profile(plot, profile, kinds, styles[profile.name], shift)
    _name_omegas(plot, shown)
    if any(profile.ranges for profile in shown):
        plot.plot([], [], color=GREY, label=RANGE, **WHISKER)
    legend_below(figure, last=[RANGE, MEAN_R])


def _draw_profile(
    plot: Plot, profile: Profile, kinds: Sequence[str], look: Look, shift: float
) -> None:
    rows = [row for row, kind in enumerate(kinds) if kind in profile.kept]
    for row in rows:
        if ends := profile.ranges.get(kinds[row]):
            plot.plot(ends, (row + shift, row + shift), color=look.colour, **WHISKER)
    plot.plot([profile.kept[kinds[row]] for row in rows], [row + shift for row in rows],
              linestyle="", markersize=4, markeredgewidth=0.5, **look.point)  # fmt: skip


def _draw_mean_r(plot: Plot, shown: Sequence[Profile], kinds: Sequence[str]) -> None:
    """Where the deltas would be if they lay on all channels alike."""
    places = sorted({
        (profile.mean_r[kind], row)
        for profile in shown
        for row, kind in enumerate(kinds)
        if kind in profile.mean_r
    })  # fmt: skip
    plot.plot([x for x, _ in places], [y for _, y in places], "|", color="#999999", markersize=9,
              markeredgewidth=0.9, zorder=1, label=MEAN_R)  # fmt: skip


def _name_omegas(plot: Plot, shown: Sequence[Profile]) -> None:
    """Each above what is kept of all its deltas."""
    kept = _collected({profile.omega: profile.kept[ALL]} for profile in shown)
    for omega, values in kept.items():
        plot.text(fmean(values), -1, omega, ha="center", va="center", fontsize=7)
