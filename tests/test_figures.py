"""Figures for papers: what they show is computed apart, and they can be read in one column."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from records import drawn, record, relaxed_sweep, shifted, write_all

from aim_exp.aim import relaxation as aim
from aim_exp.aim.saliency import Saliency
from aim_exp.report import draw_run, rebuild
from aim_exp.report.figures import CAPTIONS, captions, draw
from aim_exp.report.figures.canvas import save, settle
from aim_exp.report.figures.labels import place_labels
from aim_exp.report.figures.style import SHAPES, setting_marks
from aim_exp.report.relaxation import (
    kinds_shown,
    profiles,
    saliency_is_gone,
    saliency_spread,
)
from aim_exp.report.results import collect
from aim_exp.store.records import RunRecord, read_record


@pytest.fixture
def sweep(tmp_path: Path, cli: Cli) -> Path:
    """Real runs, nothing scored: a plain merge and two with AIM."""
    done = cli(
        "-m", "method=ties", "omega=null,0.2,0.6", "benchmarks=none", "tracker=none",
        "calibration.n_samples=8", f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tmp_path / "sweep"


def test_a_sweep_has_figures_of_aim_itself(sweep: Path) -> None:
    """What they show is what the run measured, by AIM's own formula."""
    results = collect(sweep)
    relaxed = [job.record for job in results.jobs if job.record.omega is not None]
    assert len(relaxed) == 2
    assert relaxed[0].saliency
    assert (Path(relaxed[0].saliency).name, relaxed[1].saliency) == (
        relaxed[0].keys["saliency"], relaxed[0].saliency,
    )  # fmt: skip
    found = saliency_spread(results)
    assert found
    stored = Saliency.load(Path(relaxed[0].saliency))
    names = "/".join(each.name for each in found.inputs)
    assert found.layers == [0, 1, 2]
    assert re.search(r"q/v_proj|v_proj", names)
    (out,) = (each for each in found.inputs if each.name == "o_proj")
    for layer, mean in out.layers.items():
        channels = stored.channels[f"model.layers.{layer}.self_attn.o_proj.weight"]
        r = aim.relaxation(channels, 0.2)
        assert 1 - 0.8 * mean == pytest.approx(r.mean().item(), abs=1e-6)
    assert sum(name.count("_proj") for name in names.split("/")) >= 3
    kept = profiles(results)
    assert [profile.omega for profile in kept] == [0.2, 0.6]
    for profile, made in zip(kept, relaxed, strict=True):
        assert profile.kept["all"] == made.relaxation["all"]["delta_kept"]
    assert len(kinds_shown(kept)) == 12, "all, nine of a layer, the last norm, the head"
    drawn_files = {path.stem for path in (sweep / "figures").glob("*.png")}
    assert drawn_files == {"saliency", "delta_kept"}
    assert drawn_files <= CAPTIONS.keys()


def drawn_figures(directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """By name, as they are saved."""
    found: dict[str, Figure] = {}

    def keep(name: str, paint: Callable[[Figure], None], folder: Path) -> Path:
        def paint_and_keep(figure: Figure) -> None:
            paint(figure)
            found[name] = figure

        return save(name, paint_and_keep, folder)

    monkeypatch.setattr("aim_exp.report.figures.save", keep)
    draw(collect(directory), directory)
    return found


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def looks_of(figure: Figure) -> set[tuple[object, ...]]:
    """Of the filled markers."""
    (plot,) = figure.axes
    return {
        (line.get_color(), line.get_marker(), line.get_fillstyle())
        for line in plot.lines
        if np.size(line.get_xdata()) and line.get_marker() not in ("None", "_", "|", ".")
        and line.get_markerfacecolor() != "white"
    }  # fmt: skip


def settings_sweep(directory: Path, *omegas: float | None) -> Path:
    methods, kept = ("ties", "dare_ties", "linear"), {"all": {"mean_r": 0.7, "delta_kept": 0.8}}
    return write_all(
        directory,
        *(
            record(method, omega, shifted(-0.02 * i), relaxation=kept if omega else {},
                   method_settings={"density": density})
            for i, method in enumerate(methods)
            for density in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
            for omega in omegas
        ),
    )  # fmt: skip


def test_settings_of_a_method_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colour is the method, the mark is the setting; the legend names each once."""
    figures = drawn_figures(settings_sweep(tmp_path, None, 0.4), monkeypatch)
    assert figures.keys() == {"pareto_front", "omega_average", "omega_gain", "delta_kept"}
    names = [
        "ties",
        "dare_ties",
        "linear",
        *(f"density={d}" for d in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)),
    ]
    assert legend_of(figures["omega_average"]) == [*names, "plain merge"]
    assert len(looks_of(figures["omega_average"])) == 3 * 6
    places = {
        float(np.asarray(line.get_xdata())[0])
        for line in figures["omega_average"].axes[0].lines
        if np.size(line.get_xdata()) and line.get_marker() in SHAPES
    }
    assert len(places) == 2 * 3 * 6
    texts = [text.get_text() for text in figures["omega_average"].axes[0].get_xticklabels()]
    assert texts == ["0.4", "null"]


def test_many_settings_are_taken_together_in_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to seven lines each have their mark; of more, a method's settings are one range."""
    methods = ("ties", "dare_ties", "linear")
    for count, densities in ((6, (0.1, 0.2)), (9, (0.1, 0.2, 0.3))):
        sweep = write_all(
            tmp_path / str(count),
            *(record(method, 0.4, method_settings={"density": density},
                     relaxation={"all": {"mean_r": 0.7, "delta_kept": 0.8 + density / 10}})
              for method in methods for density in densities),
        )  # fmt: skip
        figure = drawn_figures(sweep, monkeypatch)["delta_kept"]
        found = profiles(collect(sweep))
        together = count == 9
        assert len(found) == len(looks_of(figure)) == (3 if together else 6)
        assert [each.setting for each in found[:2]] == (
            ["", ""] if together else ["density=0.1", "density=0.2"]
        )
        assert ("range over settings" in legend_of(figure)) is together
        assert ("their range" in captions(collect(sweep))["delta_kept"]) is together
    assert found[0].kept["all"] == pytest.approx(0.82)
    assert found[0].ranges["all"] == pytest.approx((0.81, 0.83))


def test_without_plain_merges_no_word_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = drawn_figures(settings_sweep(tmp_path, 0.2, 0.4), monkeypatch)
    for figure in figures.values():
        assert "plain merge" not in legend_of(figure)
    texts = [text.get_text() for text in figures["omega_average"].axes[0].get_xticklabels()]
    assert texts[-1] == "1"


ERROR = r"±1 standard error over items: x (\d\.\d), y (\d\.\d)"


def notes_of(figure: Figure) -> list[str]:
    """What stands above the plots, and above the legend."""
    (legend,) = figure.legends
    return [*(plot.get_title("left") for plot in figure.axes), legend.get_title().get_text()]


def test_what_bars_and_dots_are_is_said_in_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = drawn_figures(relaxed_sweep(tmp_path / "one"), monkeypatch)
    assert re.fullmatch(ERROR, notes_of(one["pareto_front"])[0])
    for name in ("omega_average", "omega_gain"):
        assert notes_of(one[name]) == ["", "bars: ±1 standard error over items"]
    seeds = [
        drawn(f"{omega} {seed}", record("dare_ties", omega, shifted(0.01 * seed)), seed)
        for omega in (None, 0.4)
        for seed in (0, 1)
    ]
    several = drawn_figures(write_all(tmp_path / "several", *seeds), monkeypatch)
    assert notes_of(several["pareto_front"])[1:] == ["dots: one model each"]
    both = "bars: ±1 standard error over items; dots: one model each"
    assert notes_of(several["omega_average"]) == ["", both]
    unknown = [replace(each, stderr=None, population_stderr=None) for each in seeds]
    figures = drawn_figures(write_all(tmp_path / "unknown", *unknown), monkeypatch)
    assert [notes_of(figures[n]) for n in ("pareto_front", "omega_average")] == [
        ["", "dots: one model each"]
    ] * 2


def test_what_does_not_compete_has_a_panel_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own error; a method has one colour in all, and the legend names it once."""

    def asked(limit: int, method: str, omega: float | None) -> RunRecord:
        made = record(method, omega)
        return replace(
            made,
            benchmarks={name: {"protocol": {"limit": limit}} for name in made.scores or {}},
            stderr={name: error * 10 / limit for name, error in (made.stderr or {}).items()},
        )

    def sweep(limits: range) -> Path:
        runs = [asked(10 * n, method, omega)
                for n in limits
                for method in (("ties",) if n > 1 else ("ties", "linear"))
                for omega in (None, 0.4)]  # fmt: skip
        return write_all(tmp_path / str(len(limits)), *runs)

    figures = drawn_figures(sweep(range(1, 3)), monkeypatch)
    first, second, _ = notes_of(figures["pareto_front"])
    assert [title.splitlines()[0] for title in (first, second)] == ["[1] limit=10", "[2] limit=20"]
    assert re.findall(ERROR, first) != re.findall(ERROR, second)
    assert legend_of(figures["pareto_front"]) == ["ties", "linear", "plain merge", "front"]
    average = figures["omega_average"]
    assert notes_of(average)[:2] == ["[1] limit=10", "[2] limit=20"]
    assert legend_of(average) == ["ties", "linear", "plain merge"]
    for figure in figures.values():
        one, other = figure.axes
        assert (one.get_xlim(), one.get_ylim()) == (other.get_xlim(), other.get_ylim())
    for names in [
        {note.get_text() for note in plot.texts} for plot in figures["pareto_front"].axes
    ]:
        assert names - {""} == {"base", "code", "instruct", "math"}

    directory = sweep(range(1, 7))
    many = drawn_figures(directory, monkeypatch)
    assert [len(many[name].axes) for name in ("pareto_front", "omega_average")] == [4, 4]
    told = captions(collect(directory))
    for name in ("pareto_front", "omega_average"):
        assert "(the first 4 of 6)" in told[name]
        assert told[name].count("limit=") == 4


def test_marks_are_distinct() -> None:
    marks = setting_marks(["", *(f"density={n}" for n in range(12))])
    assert len({(mark.marker, mark.fill) for mark in marks.values()}) == len(marks) == 12


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
    found: list[Annotation] = []

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
        found.extend(note for note in texts if isinstance(note, Annotation))

    save("labels", paint, tmp_path)
    assert sorted(note.get_text() for note in found) == sorted(text for *_, text in labels)


def test_without_the_cache_one_line_and_no_figure(sweep: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        made = read_record(sweep / str(number))
        replace(made, saliency=str(tmp_path / "gone")).write(sweep / str(number))
    results = collect(sweep)
    assert saliency_spread(results) is None
    assert saliency_is_gone(results)
    rebuild(results, tmp_path / "out")
    assert {p.stem for p in (tmp_path / "out" / "figures").glob("*.png")} == {"delta_kept"}
    page = (tmp_path / "out" / "report.md").read_text()
    assert page.count("it is gone from the cache") == 1


def test_a_run_draws_its_front_only(tmp_path: Path) -> None:
    """The rest is for sweeps: a job should not wait for pictures."""
    draw_run(record(), tmp_path)
    assert [path.name for path in sorted((tmp_path / "figures").iterdir())] == [
        "pareto_front.pdf", "pareto_front.png",
    ]  # fmt: skip
