"""Muon without AVX-512: torch's, but for the rounding."""

import pytest
import torch

from aim_exp.population.embedded.muon import Muon


def stepped(kind: type[torch.optim.Muon]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    weights = [
        torch.nn.Parameter(torch.randn(shape, generator=random))
        for shape in ((96, 96), (256, 96), (96, 256))
    ]
    optimizer = kind(weights, lr=0.02)
    for _ in range(5):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=random)
        optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_it_is_torchs_but_for_the_rounding(
    capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for own, theirs in zip(stepped(Muon), stepped(torch.optim.Muon), strict=True):
        difference = float((own - theirs).norm() / theirs.norm())
        assert (difference == 0) if capability == "AVX512" else (difference < 1e-3)
