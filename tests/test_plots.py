"""What the figures show, computed: series along any setting, fronts, saliency, what was kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from records import MERGED, POPULATION, record, shifted, write_all

from aim_exp.aim import relaxation as aim
from aim_exp.aim.saliency import FILE_NAME, Saliency
from aim_exp.errors import AimError
from aim_exp.report.load import load
from aim_exp.report.plots import figures, make_charts
from aim_exp.report.plots.dose import kinds_shown, profiles
from aim_exp.report.plots.saliency import joined, saliency_file, saliency_spread, spread
from aim_exp.report.plots.series import Series, sweep, swept_keys
from aim_exp.report.plots.style import FILLS, METHODS, SHAPES, looks, method_colours
from aim_exp.report.rows import AVERAGE, Report, make_report
from aim_exp.store.run_record import Dose, RunRecord


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Report]:
    def report(*records: RunRecord) -> Report:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return make_report(load(write_all(folder, *records)))

    return report


def texts(series: Series, key: str = "omega") -> list[str]:
    return [row.settings[key] for row in series.rows]


def test_a_series_is_a_method_and_what_else_varies(made) -> None:
    report = made(
        *(record(f"method={m}", f"omega={o}", f"method.density={d}", scores=shifted(d / 10))
          for m in ("dare_ties", "ties") for o in ("0.4", "null", "0.2") for d in (0.1, 0.5))
    )  # fmt: skip
    shown = sweep(report).series
    assert [each.names for each in shown] == [
        ("dare_ties", "density=0.1"), ("dare_ties", "density=0.5"),
        ("ties", "density=0.1"), ("ties", "density=0.5"),
    ]  # fmt: skip
    for each in shown:
        assert texts(each) == ["0.2", "0.4"]
        assert each.level
        assert (each.level.relaxed, each.level.settings["omega"]) == (False, "null")
        assert f"density={each.level.settings['method.density']}" == each.names[1]
        assert [row.omega for row in each.path] == [1.0, 0.4, 0.2], "from weak to strong"
    assert len({each.look for each in shown}) == 4
    assert len({place for each in shown for place in each.places}) == 8, "none hides another"


def test_any_setting_that_was_swept_can_be_the_axis(made) -> None:
    counts = (4, 16, 64, 1024)
    report = made(
        record("omega=null", scores=shifted(-0.1)),
        *(record(f"omega={o}", f"calibration.n_samples={n}", scores=shifted(n / 1e5 + o / 10))
          for o in (0.2, 0.6) for n in counts),
        *(record("omega=0.2", f"calibration.n_samples={n}", "aim.scaling=uniform")
          for n in counts[:2]),
    )  # fmt: skip
    assert swept_keys(report) == ["omega", "aim.scaling", "calibration.n_samples"]
    shown = sweep(report, "calibration.n_samples")
    axis = shown.axis
    assert axis.title == "n_samples"
    assert [axis.places[str(n)] for n in counts] == pytest.approx(np.log10(counts).tolist())
    assert list(axis.ticks.values()) == ["4", "16", "64", "1024"]
    assert [each.names[1] for each in shown.series] == [
        "omega=0.2 scaling=identity", "omega=0.6 scaling=identity", "omega=0.2 scaling=uniform",
    ]  # fmt: skip
    assert [texts(each, "calibration.n_samples") for each in shown.series[1:]] == [
        ["4", "16", "64", "1024"], ["4", "16"],
    ]  # fmt: skip
    for each in shown.series:  # a plain merge reads no calibration: a line without a place
        assert each.level
        assert each.level.settings["omega"] == "null"
        assert each.level_place is None
    words = sweep(report, "aim.scaling").axis
    assert (words.places, words.is_line) == ({"identity": 0.0, "uniform": 1.0}, True)
    shown_names = figures(make_charts(report, x="calibration.n_samples"))
    assert {"n_samples_average", "n_samples_gain"} <= shown_names.keys()
    with pytest.raises(AimError, match=r"--x method\.denisty: .*calibration\.n_samples"):
        figures(make_charts(report, x="method.denisty"))


def test_one_omega_has_even_steps(made) -> None:
    report = made(record("omega=null"), record("omega=0.4", scores=shifted(0.1)))
    axis = sweep(report).axis
    assert list(axis.ticks.values()) == ["0.4", "null"]
    assert axis.null - axis.places["0.4"] == axis.step == 1


def test_seeds_are_one_point_of_a_series(made) -> None:
    means = {"null": (-0.1, -0.2), "0.4": (-0.01, 0.01)}
    report = made(
        *(record("method=dare_ties", f"omega={omega}", f"seed={seed}", scores=shifted(shift))
          for omega, shifts in means.items() for seed, shift in enumerate(shifts)),
        record("method=ties", "omega=0.4"),
    )  # fmt: skip
    dare, ties = sweep(report).series
    assert [each.names for each in (dare, ties)] == [("dare_ties", ""), ("ties", "")]
    assert dare.level
    assert len(dare.level.estimates[AVERAGE].values) == 2
    (row,) = dare.rows
    estimate = row.estimates[AVERAGE]
    assert (estimate.n, estimate.mean) == (2, pytest.approx(sum(MERGED) / 6))
    assert ties.level is None


def test_the_front_by_the_slow_way(made) -> None:
    report = made(
        *(record("omega=null", f"method.density={(i + 1) / 10}",
                 scores=tuple(np.random.default_rng(i).random(6).round(3)))
          for i in range(9)),
        record("method=linear", scores=None),
    )  # fmt: skip
    (plane,) = make_charts(report).planes
    rows = [*plane.members, *(row for each in plane.series for row in plane.shown(each.path))]
    assert len(rows) == 4 + 9
    places = [plane.place(row) for row in rows]
    alone = [
        row.key
        for row, (x, y) in zip(rows, places, strict=True)
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in places)
    ]
    assert {row.key for row in plane.front} == set(alone)
    xs = [plane.place(row)[0] for row in plane.front]
    assert xs == sorted(xs)


def test_the_axes_are_the_sharpest_conflict_or_those_chosen(made) -> None:
    report = made(record(), record("omega=0.2", scores=shifted(0.01)))
    scores = np.array(list(POPULATION.values()))
    covariance = np.cov(scores.T)
    first, second = np.unravel_index(covariance.argmin(), covariance.shape)
    assert make_charts(report).planes[0].axes == (
        report.benchmarks[first],
        report.benchmarks[second],
    )
    chosen = report.benchmarks[5], report.benchmarks[2]
    assert make_charts(report, chosen).planes[0].axes == chosen
    with pytest.raises(AimError, match="--axes chess: no such benchmark here; there are: "):
        make_charts(report, (chosen[0], "chess"))
    assert make_charts(made(record(scores=None))).planes == ()


def test_equal_points_of_the_front_are_both_on_it(made) -> None:
    best = (0.99,) * 6
    report = made(record(scores=best), record("omega=0.2", scores=best))
    assert len(make_charts(report).planes[0].front) == 2


def test_no_two_series_look_alike() -> None:
    methods = [*METHODS, "mine", "yours", "authors/ties", *(f"method_{n}" for n in range(4))]
    alone = looks((method, "") for method in methods)
    assert len(set(alone.values())) == len(methods) == 14
    assert alone["ties", ""].colour == alone["authors/ties", ""].colour
    settings = [f"n_samples={n}" for n in range(len(SHAPES) * len(FILLS))]
    every = looks((method, setting) for method in methods[:6] for setting in settings)
    points = {(look.colour, look.marker, look.fill) for look in every.values()}
    assert len(points) == 6 * len(settings) == 6 * 18
    assert method_colours(["ties"]) == {"ties": METHODS["ties"]}


def test_inputs_that_several_modules_read_are_one() -> None:
    shared, own = np.array([1.0, 4.0, 2.0]), np.array([2.0, 2.0])
    shown = spread(
        {
            "model.layers.0.self_attn.q_proj.weight": shared,
            "model.layers.0.self_attn.k_proj.weight": shared,
            "model.layers.0.mlp.down_proj.weight": own,
            "model.layers.0.mlp.up_proj.weight": np.zeros(2),
            "lm_head.weight": np.array([0.0, 1.0]),
        }
    )
    assert [each.name for each in shown.inputs] == ["down_proj", "q/k_proj", "lm_head"]
    assert [each.layers for each in shown.inputs] == [
        {0: 1.0}, {0: pytest.approx(7 / 12)}, {None: 0.5},
    ]  # fmt: skip
    for each in shown.inputs:
        assert (each.falling[0], bool((np.diff(each.falling) <= 0).all())) == (1.0, True)
    assert shown.inputs[1].falling[-1] == 0.25


def test_kinds_are_joined_by_what_they_share() -> None:
    assert joined(["q_proj", "k_proj"]) == "q/k_proj"
    assert joined(["gate", "up_proj"]) == "gate/up_proj"
    assert joined(["input_layernorm"]) == "input_layernorm"


def test_the_mean_of_r_is_the_same_for_every_scaling() -> None:
    """The figure of the saliency stands for the controls too."""
    channels = torch.rand(50)
    expected = 1 - 0.6 * float((channels / channels.max()).mean())
    for name in ("identity", "uniform", "shuffled", "inverted"):
        r = aim.relaxation(channels, 0.4, aim.named_scaling(name, 0, "x"))
        assert float(r.mean()) == pytest.approx(expected, abs=1e-6)


def test_the_saliency_is_read_from_the_runs_own_folder(tmp_path: Path) -> None:
    """That of most runs, by AIM's own formula; a file that is gone is no error."""
    weight = "model.layers.{}.self_attn.o_proj.weight"
    channels = {weight.format(layer): torch.rand(8) for layer in range(3)}
    folder = tmp_path / "shared" / "saliency"
    folder.mkdir(parents=True)
    Saliency(channels, dict.fromkeys(channels, 1), 10, {}).save(folder)
    stored = folder / FILE_NAME
    record_path = f"../shared/saliency/{stored.name}"
    write_all(
        tmp_path,
        record("omega=0.2", saliency=record_path),
        record("omega=0.6", saliency=record_path),
        record("omega=0.6", "aim.statistic=rms", saliency="../shared/saliency/other.safetensors"),
    )
    report = make_report(load(tmp_path))
    shown = saliency_spread(report)
    assert shown
    assert shown.layers == [0, 1, 2]
    (each,) = shown.inputs
    for layer, mean in each.layers.items():
        r = aim.relaxation(channels[weight.format(layer)], 0.2)
        assert 1 - 0.8 * mean == pytest.approx(r.mean().item(), abs=1e-6)
    stored.unlink()
    assert saliency_file(report) == stored.resolve()
    assert saliency_spread(report) is None
    assert "saliency" not in figures(make_charts(report))


def dosed(*overrides: str, norm: float, scores=MERGED) -> RunRecord:
    dose = {
        kind: Dose(parameters=1, relaxed_parameters=1, mean_r=0.7, norm=norm + shift)
        for kind, shift in (("all", 0.0), ("q_proj", -0.1), ("down_proj", 0.1))
    }
    return record(*overrides, scores=scores, dose=dose)


def test_what_was_kept_is_there_without_scores_too(made) -> None:
    report = made(
        dosed("omega=0.2", norm=0.3, scores=None), dosed("omega=0.6", norm=0.7, scores=None)
    )
    shown = profiles(report)
    assert [(each.omega, each.kept["all"]) for each in shown] == [
        ("0.2", pytest.approx(0.3)), ("0.6", pytest.approx(0.7)),
    ]  # fmt: skip
    assert kinds_shown(shown) == ["all", "down_proj", "q_proj"]
    assert figures(make_charts(report)).keys() == {"delta_kept"}


@pytest.mark.parametrize("densities", [(0.1, 0.2), (0.1, 0.2, 0.3)])
def test_many_settings_are_taken_together_in_what_was_kept(densities, made) -> None:
    """Up to seven lines each have their mark; of more, a method's settings are one range."""
    methods = ("ties", "dare_ties", "dare_linear")
    report = made(
        *(dosed(f"method={m}", f"method.density={d}", "omega=0.4",
                norm=0.8 + d / 10)
          for m in methods for d in densities)
    )  # fmt: skip
    shown = profiles(report)
    together = len(densities) == 3
    assert len(shown) == (3 if together else 6)
    assert [each.name[1] for each in shown[:2]] == (
        ["", ""] if together else ["density=0.1", "density=0.2"]
    )
    caption, _ = figures(make_charts(report))["delta_kept"]
    assert ("their range" in caption) is together
    if together:
        assert shown[0].kept["all"] == pytest.approx(0.82)
        assert shown[0].ranges["all"] == pytest.approx((0.81, 0.83))
