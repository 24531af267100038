"""What the figures show, computed: saliency, series against omega, errors of gains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from records import drawn, record, shifted, write_all

from aim_exp.aim import relaxation as aim
from aim_exp.report.models import gain_estimate
from aim_exp.report.plots import series
from aim_exp.report.relaxation import (
    joined,
    spread,
)
from aim_exp.report.repeats import AVERAGE
from aim_exp.report.results import collect


def test_inputs_that_several_modules_read_are_one() -> None:
    shared, own = np.array([1.0, 4.0, 2.0]), np.array([2.0, 2.0])
    found = spread(
        {
            "model.layers.0.self_attn.q_proj.weight": shared,
            "model.layers.0.self_attn.k_proj.weight": shared,
            "model.layers.0.mlp.down_proj.weight": own,
            "model.layers.0.mlp.up_proj.weight": np.zeros(2),
            "lm_head.weight": np.array([0.0, 1.0]),
        }
    )
    assert [each.name for each in found.inputs] == ["down_proj", "q/k_proj", "lm_head"]
    assert [each.layers for each in found.inputs] == [
        {0: 1.0}, {0: pytest.approx(7 / 12)}, {None: 0.5},
    ]  # fmt: skip
    for each in found.inputs:
        assert (each.falling[0], bool((np.diff(each.falling) <= 0).all())) == (1.0, True)
    assert found.inputs[1].falling[-1] == 0.25


def test_kinds_are_joined_by_what_they_share() -> None:
    assert joined(["q_proj", "k_proj"]) == "q/k_proj"
    assert joined(["gate", "up_proj"]) == "gate/up_proj"
    assert joined(["input_layernorm"]) == "input_layernorm"


def test_the_mean_of_r_is_the_same_for_every_scaling() -> None:
    """The figure of the saliency stands for the controls too."""
    channels = torch.rand(50)
    expected = 1 - 0.6 * float((channels / channels.max()).mean())
    assert len(aim.SCALINGS) == 4
    for name in aim.SCALINGS:
        r = aim.relaxation(channels, 0.4, aim.named_scaling(name, 0, "x"))
        assert float(r.mean()) == pytest.approx(expected, abs=1e-6)


def test_seeds_are_one_curve(tmp_path: Path) -> None:
    write_all(
        tmp_path,
        drawn("a", record("dare_ties", None, shifted(-0.1)), 0),
        drawn("b", record("dare_ties", None, shifted(-0.2)), 1),
        drawn("c", record("dare_ties", 0.4, shifted(-0.01)), 0),
        drawn("d", record("dare_ties", 0.4, shifted(0.01)), 1),
        drawn("e", record("ties", 0.4), 0),
    )
    dare, ties = series(collect(tmp_path))
    assert [(each.method, each.setting) for each in (dare, ties)] == [
        ("dare_ties", ""), ("ties", ""),
    ]  # fmt: skip
    assert dare.null
    assert len(dare.null.values(AVERAGE)) == 2
    (run,) = dare.runs
    found = run.spread(AVERAGE)
    assert found
    assert (found.n, found.mean) == (2, pytest.approx(sum(shifted(0)) / 6))
    assert ties.null is None


def test_a_gain_has_an_error() -> None:
    made = record("ties", 0.4)
    estimate = gain_estimate(made)
    assert estimate
    assert estimate.value == made.hypervolume_gain
    assert estimate.stderr
    assert 0.005 < estimate.stderr < 0.1
    exact = dict.fromkeys(made.stderr or {}, 0.0)
    members = dict.fromkeys(made.population_stderr or {}, exact)
    certain = gain_estimate(replace(made, stderr=exact, population_stderr=members))
    assert certain
    assert certain.stderr == pytest.approx(0, abs=1e-9)
    assert gain_estimate(replace(made, stderr=None)) == replace(estimate, stderr=None)
