"""Relaxation against its definition, and its controls."""

import pytest
import torch

from aim_exp.aim.relaxation import named_scaling, relax, relaxation

G = torch.Generator().manual_seed(0)
BASE, MERGED = torch.randn(6, 4, generator=G), torch.randn(6, 4, generator=G)
SALIENCY = torch.tensor([0.5, 2.0, 0.0, 1.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_relax_is_its_definition_for_a_linear_weight(dtype: torch.dtype) -> None:
    base, merged = BASE.to(dtype), MERGED.to(dtype)
    r = 1 - (SALIENCY / 2.0) * (1 - 0.4)
    expected = (base.float() + (merged.float() - base.float()) * r).to(dtype)
    torch.testing.assert_close(relax(base, merged, SALIENCY, 0.4), expected)
    assert relax(base, merged, SALIENCY, 0.4).dtype == dtype


def test_relax_along_another_axis_and_for_a_norm() -> None:
    expected = relax(BASE, MERGED, SALIENCY, 0.3)
    transposed = relax(BASE.T.contiguous(), MERGED.T.contiguous(), SALIENCY, 0.3, axis=0)
    assert torch.equal(transposed.T, expected)
    assert torch.equal(relax(BASE[0], MERGED[0], SALIENCY, 0.3), expected[0])


def test_both_ends_are_exact() -> None:
    assert torch.equal(relax(BASE, MERGED, SALIENCY, 1.0), MERGED)
    reset = relax(BASE, MERGED, SALIENCY, 0.0)
    assert torch.equal(reset[:, 1], BASE[:, 1])
    assert torch.equal(reset[:, 2], MERGED[:, 2])
    assert torch.equal(relax(BASE, MERGED, torch.zeros(4), 0.2), MERGED)


def test_the_inputs_stay_as_they_are() -> None:
    before = MERGED.clone()
    relax(BASE, MERGED, SALIENCY, 0.4)
    assert torch.equal(MERGED, before)


@pytest.mark.parametrize("omega", [-0.1, 1.5, float("nan")])
def test_omega_outside_its_range_is_refused(omega: float) -> None:
    with pytest.raises(ValueError, match=r"omega=.*must be in \[0, 1\]"):
        relax(BASE, MERGED, SALIENCY, omega)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        relax(BASE[:3], MERGED, SALIENCY, 0.4)
    with pytest.raises(ValueError, match="saliency"):
        relax(BASE, MERGED, SALIENCY, 0.4, axis=0)
    with pytest.raises(ValueError, match="NaN"):
        relax(BASE, MERGED, SALIENCY * float("nan"), 0.4)


def test_a_scaling_of_ones_own() -> None:
    squared = relax(BASE, MERGED, SALIENCY, 0.4, scaling=lambda s: s**2)
    expected = BASE + (MERGED - BASE) * (1 - (SALIENCY / 2) ** 2 * 0.6)
    torch.testing.assert_close(squared, expected)


def test_the_controls_keep_the_mean_and_lose_the_order() -> None:
    saliency = torch.rand(500, generator=G)
    names = ("identity", "uniform", "shuffled", "inverted")
    r = {name: relaxation(saliency, 0.4, named_scaling(name, 0, "layer.weight")) for name in names}
    for name, factors in r.items():
        torch.testing.assert_close(factors.mean(), r["identity"].mean(), msg=name)
    assert (r["uniform"] == r["uniform"][0]).all()
    for name in ("shuffled", "inverted"):
        assert torch.equal(r[name].sort().values, r["identity"].sort().values)
    assert torch.equal(r["inverted"].argsort(), r["identity"].argsort().flip(0))
    correlation = torch.corrcoef(torch.stack([r["shuffled"], r["identity"]]))[0, 1]
    assert abs(correlation) < 0.2


def test_shuffling_depends_on_seed_and_tensor_only() -> None:
    s = torch.rand(50, generator=G)

    def shuffled(seed: int, name: str) -> list[float]:
        scaling = named_scaling("shuffled", seed, name)
        assert scaling
        return scaling(s).tolist()

    assert shuffled(0, "w") == shuffled(0, "w")
    assert shuffled(0, "w") != shuffled(1, "w")
    assert shuffled(0, "w") != shuffled(0, "v")
