"""Figures for papers, as drawn: what tells things apart, and what the figure itself says of it."""

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from records import record, relaxed_sweep, shifted, write_all

from aim_exp.report import draw_run
from aim_exp.report.html.data import figure_data
from aim_exp.report.load import load
from aim_exp.report.plots import Charts, draw, figures, make_charts
from aim_exp.report.plots.canvas import painted, save, settle
from aim_exp.report.plots.labels import place_labels
from aim_exp.report.plots.series import OMEGA
from aim_exp.report.plots.style import MARKERS
from aim_exp.report.rows import make_report
from aim_exp.report.tables.scores import leaderboard
from aim_exp.store.run_record import RunRecord

METHODS = ("ties", "dare_ties", "dare_linear")
DENSITIES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
ERROR = r"±1 standard error over items: x (\d\.\d), y (\d\.\d)"


def charts_of(directory: Path, x: str = OMEGA) -> Charts:
    return make_charts(make_report(load(directory)), x=x)


def captions(directory: Path) -> dict[str, str]:
    return {name: caption for name, (caption, _) in figures(charts_of(directory)).items()}


def figures_of(directory: Path, x: str = OMEGA) -> dict[str, Figure]:
    """By name, as they are saved."""
    shown: dict[str, Figure] = {}
    for name, (_, paint) in figures(charts_of(directory, x)).items():

        def paint_and_keep(
            figure: Figure, name: str = name, paint: Callable[[Figure], None] = paint
        ) -> None:
            paint(figure)
            shown[name] = figure

        save(name, paint_and_keep, directory / "figures", vector=False)
    return shown


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def points_of(figure: Figure) -> list[tuple[tuple[object, ...], float]]:
    """Looks and places of the markers, with whether they are hollow."""
    return [
        (
            (line.get_color(), line.get_marker(), line.get_fillstyle(),
             line.get_markerfacecolor() == "white"),
            float(np.asarray(line.get_xdata())[0]),
        )
        for plot in figure.axes
        for line in plot.lines
        if np.size(line.get_xdata()) and line.get_marker() in MARKERS
    ]  # fmt: skip


def notes_of(figure: Figure) -> list[str]:
    """What stands above the plots, and above the legend."""
    (legend,) = figure.legends
    return [*(plot.get_title("left") for plot in figure.axes), legend.get_title().get_text()]


def settings_sweep(directory: Path, *omegas: str) -> Path:
    return write_all(
        directory,
        *(
            record(f"method={method}", f"omega={omega}", f"method.density={density}",
                   scores=shifted(-0.02 * i + density / 50))
            for i, method in enumerate(METHODS)
            for density in DENSITIES
            for omega in omegas
        ),
    )  # fmt: skip


def test_settings_of_a_method_are_told_apart(tmp_path: Path) -> None:
    """Colour is the method, the mark is the setting; the legend names each once."""
    shown = figures_of(settings_sweep(tmp_path, "null", "0.4"))
    assert shown.keys() == {"pareto_front", "omega_average", "omega_gain"}
    names = [*METHODS, *(f"density={d}" for d in DENSITIES), "plain merge"]
    for name in ("omega_average", "omega_gain"):
        assert legend_of(shown[name]) == names
        looks, places = zip(*points_of(shown[name]), strict=True)
        assert len(set(looks)) == len(set(places)) == len(looks) == 2 * 3 * 6
        ticks = shown[name].axes[0].get_xticklabels()
        assert [text.get_text() for text in ticks] == ["0.4", "null"]
    looks = {look for look, _ in points_of(shown["pareto_front"]) if look[0] != "#333333"}
    assert len(looks) == 2 * 3 * 6, "in the front too"


def test_a_setting_can_be_the_axis(tmp_path: Path) -> None:
    shown = figures_of(settings_sweep(tmp_path, "null", "0.4"), x="method.density")
    assert {"density_average", "density_gain"} <= shown.keys()
    figure = shown["density_average"]
    assert legend_of(figure) == [*METHODS, "omega=null", "omega=0.4", "plain merge"]
    assert figure.axes[0].get_xlabel() == "density"
    assert len({look for look, _ in points_of(figure)}) == 2 * 3


def test_without_plain_merges_no_word_of_them(tmp_path: Path) -> None:
    directory = settings_sweep(tmp_path, "0.2", "0.4")
    shown = figures_of(directory)
    for figure in shown.values():
        assert "plain merge" not in legend_of(figure)
    ticks = shown["omega_average"].axes[0].get_xticklabels()
    assert ticks[-1].get_text() == "1"
    assert "plain" not in " ".join(captions(directory).values())


def test_what_bars_and_dots_are_is_said_in_the_figure(tmp_path: Path) -> None:
    one = figures_of(relaxed_sweep(tmp_path / "one"))
    assert re.fullmatch(ERROR, notes_of(one["pareto_front"])[0])
    for name in ("omega_average", "omega_gain"):
        assert notes_of(one[name]) == ["", "bars: ±1 standard error over items"]
    seeds = [
        record("method=dare_ties", f"omega={omega}", f"seed={seed}", scores=shifted(0.01 * seed))
        for omega in ("null", "0.4")
        for seed in (0, 1)
    ]
    several = figures_of(write_all(tmp_path / "several", *seeds))
    assert notes_of(several["pareto_front"])[1:] == ["dots: one model each"]
    both = "bars: ±1 standard deviation over n seeds; dots: one model each"
    assert notes_of(several["omega_average"]) == ["", both]


@pytest.mark.parametrize("kind", ["deviation", "stderr", "none"])
def test_bars_are_what_follows_the_numbers_of_tables(kind, tmp_path: Path) -> None:
    """On paper, on the page and in the tables the same, by the same name."""
    runs = [
        record("method=dare_ties", f"omega={omega}", f"seed={n}", scores=shifted(omega * n / 9))
        for omega in (0.2, 0.4)
        for n in (0, 1)
    ]
    report = make_report(load(write_all(tmp_path, *runs))).with_margins(kind)
    charts, (group,) = make_charts(report), report.groups
    table, row = leaderboard(report, group), group.ranked[0]
    cell = next(cell for cell in table.rows[0].cells if cell.value is not None)
    figure = painted(figures(charts)["omega_average"][1])
    heights = [
        np.ptp(segment[:, 1]) / 200
        for bars in figure.axes[0].containers
        for lines in bars.lines[2]
        for segment in lines.get_segments()
    ]
    assert heights[-1:] == [pytest.approx(cell.margin)] * (cell.margin is not None)
    page = figure_data(charts)
    assert page
    (shown,) = (each["errors"][0] for each in page["rows"] if row.key.startswith(each["key"]))
    assert shown == (cell.margin and pytest.approx(100 * cell.margin, rel=1e-5))
    name = {"deviation": "standard deviation over n seeds",
            "stderr": "standard error over items", "none": ""}[kind]  # fmt: skip
    assert table.margin == name
    dots = "dots: one model each"
    assert notes_of(figure)[1] == (f"bars: ±1 {name}; {dots}" if name else dots)


def test_what_does_not_compete_has_a_panel_of_its_own(tmp_path: Path) -> None:
    """A method has one colour in all, and the legend names it once."""

    def sweep(limits: range) -> Path:
        runs: list[RunRecord] = [
            record(f"method={method}", f"omega={omega}", f"benchmarks.limit={10 * n}",
                   scores=shifted(0.01 * n))
            for n in limits
            for method in (("ties",) if n > 1 else ("ties", "linear"))
            for omega in ("null", "0.4")
        ]  # fmt: skip
        return write_all(tmp_path / str(len(limits)), *runs)

    shown = figures_of(sweep(range(1, 3)))
    first, second, _ = notes_of(shown["pareto_front"])
    assert [title.splitlines()[0] for title in (first, second)] == ["limit=10", "limit=20"]
    assert legend_of(shown["pareto_front"]) == ["ties", "linear", "plain merge", "front"]
    average = shown["omega_average"]
    assert notes_of(average)[:2] == ["limit=10", "limit=20"]
    assert legend_of(average) == ["ties", "linear", "plain merge"]
    for figure in shown.values():
        one, other = figure.axes
        assert (one.get_xlim(), one.get_ylim()) == (other.get_xlim(), other.get_ylim())
    for plot in shown["pareto_front"].axes:
        assert {note.get_text() for note in plot.texts} - {""} == {
            "base", "code", "instruct", "math",
        }  # fmt: skip

    directory = sweep(range(1, 7))
    many = figures_of(directory)
    assert [len(many[name].axes) for name in ("pareto_front", "omega_average")] == [4, 4]
    said = captions(directory)
    for name in ("pareto_front", "omega_average"):
        assert "(the first 4 of 6)" in said[name]


def test_references_are_named_and_do_not_compete(tmp_path: Path) -> None:
    joint = {"joint": (0.99,) * 6}
    figure = figures_of(write_all(tmp_path, record(references=joint)))["pareto_front"]
    assert "reference" in legend_of(figure)
    names = {note.get_text() for note in figure.axes[0].texts}
    assert "joint" in names
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "front")
    assert np.asarray(line.get_ydata()).max() < 99


def test_texts_lie_on_no_text_and_no_point(tmp_path: Path) -> None:
    """Experts of three populations, close to one another, as in a real join."""
    places = {
        "instruct": ((26, 99), (21, 96), (9, 96)), "base": ((57, 50), (37, 45), (25, 45)),
        "math": ((27, 43), (25, 42), (20, 42)), "code": ((94, 43), (95, 42), (96, 39)),
    }  # fmt: skip
    labels = [
        (x, y, f"{name} [{number}]")
        for name, spots in places.items()
        for number, (x, y) in enumerate(spots, 1)
    ]
    placed: list[Annotation] = []

    def paint(figure: Figure) -> None:
        plot = figure.subplots()
        plot.set(xlim=(0, 105), ylim=(33, 105))
        settle(figure)
        points = [(x, y) for x, y, _ in labels]
        place_labels(
            plot, labels, points, lines=[[(0, 99), (26, 99), (26, 43), (96, 43), (96, 33)]]
        )
        texts = [note for note in plot.texts if note.get_text()]
        boxes = [note.get_window_extent() for note in texts]
        assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
        spots = plot.transData.transform(points)
        assert not [spot for spot in spots if any(box.contains(*spot) for box in boxes)]
        placed.extend(note for note in texts if isinstance(note, Annotation))

    save("labels", paint, tmp_path)
    assert sorted(note.get_text() for note in placed) == sorted(text for *_, text in labels)


def test_every_figure_is_a_png_and_a_pdf(tmp_path: Path) -> None:
    directory = relaxed_sweep(tmp_path)
    draw(charts_of(directory), directory)
    files = {path.name for path in (directory / "figures").iterdir()}
    assert files == {
        f"{name}.{ending}" for name in captions(directory) for ending in ("png", "pdf")
    }


def test_a_run_draws_its_front_only(tmp_path: Path) -> None:
    """The rest is for sweeps: a job should not wait for pictures."""
    record().write(tmp_path)
    draw_run(tmp_path)
    files = {path.name for path in (tmp_path / "figures").iterdir()}
    assert files == {"pareto_front.png", "pareto_front.pdf"}


@pytest.mark.parametrize("members", [None, {"base": (0.5,) * 6, "code": (0.6,) * 6}])
def test_equal_scores_everywhere_are_drawn_too(members, tmp_path: Path) -> None:
    chosen = {} if members is None else {"members": members}
    write_all(tmp_path, *(record(f"omega={omega}", scores=(0.5,) * 6, **chosen)
                          for omega in ("null", 0.2)))  # fmt: skip
    assert figures_of(tmp_path).keys() == {"pareto_front", "omega_average", "omega_gain"}
