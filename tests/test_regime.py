"""The regime of a model: measures against plain definitions, and the command."""

from pathlib import Path

import numpy as np
import pytest
import torch

from aim_exp.aim.regime import regime, spread_of
from aim_exp.aim.saliency import Saliency
from aim_exp.saliency import main

G = torch.Generator().manual_seed(0)


def test_the_measures_are_their_definitions() -> None:
    half, other = (10 ** torch.randn(400, generator=G) for _ in range(2))
    s = (half.double() + other.double()).numpy() / 2
    spread = spread_of(half, other, 0.4)
    assert spread.max_to_median == pytest.approx(s.max() / np.median(s))
    assert spread.top_share == pytest.approx(np.sort(s)[-4:].sum() / s.sum())
    gini = np.abs(s[:, None] - s[None]).mean() / (2 * s.mean())
    assert spread.gini == pytest.approx(gini)
    centred = s - s.mean()
    assert spread.kurtosis == pytest.approx((centred**4).mean() / (centred**2).mean() ** 2)
    assert spread.share_below == pytest.approx((1 - s / s.max() * 0.6 < 0.9).mean())
    assert spread.split_half == pytest.approx(np.corrcoef(half, other)[0, 1])


def test_flat_and_heavy_tailed() -> None:
    flat = 1 + 0.01 * torch.rand(1000, generator=G)
    heavy = flat.clone()
    heavy[:3] = 1000
    even, uneven = (spread_of(s, s, 0.4) for s in (flat, heavy))
    assert (even.max_to_median, even.share_below) == (pytest.approx(1, abs=0.02), 1)
    assert (even.gini, even.split_half) == (pytest.approx(0, abs=0.01), pytest.approx(1))
    assert uneven.share_below == 0.003
    assert uneven.top_share > 0.7
    assert uneven.gini > 0.7
    assert uneven.kurtosis > 100


def test_kinds_with_one_input_are_one_line() -> None:
    x, y = torch.rand(8, generator=G), torch.rand(8, generator=G)
    channels = {f"layers.{i}.{kind}.weight": x + i for i in (0, 1) for kind in ("q_proj", "k_proj")}
    channels["layers.0.norm.weight"] = y
    saliency = Saliency(channels, dict.fromkeys(channels, 1), 1, {})
    inputs = regime(saliency, saliency, 0.4)
    assert [(each.kinds, len(each.spreads)) for each in inputs] == [
        ("q_proj k_proj", 2),
        ("norm", 1),
    ]
    by_hand = [spread_of(x + i, x + i, 0.4).gini for i in (0, 1)]
    assert inputs[0].mean.gini == pytest.approx(sum(by_hand) / 2)
    assert inputs[0].profile.tolist() == sorted(inputs[0].profile.tolist(), reverse=True)


def test_the_command(
    tiny_population: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"A sentence with the number {i} in it." for i in range(40)))
    figure = tmp_path / "figures" / "regime.png"
    base = str(tiny_population / "base")
    few = ["--texts", str(text), "--block-size", "32"]
    assert main([base, str(tiny_population / "code"), *few, "--figure", str(figure)]) == 0
    shown = capsys.readouterr().out
    assert "tokens only; from 32,000 on it is settled" in shown
    assert figure.read_bytes().startswith(b"\x89PNG")
    for words in ("max/median", "halves", "k_proj q_proj v_proj", "down_proj", "lm_head"):
        assert shown.count(words) == 2
    assert main([base, *few, "--layers", "--skip-positions", "1"]) == 0
    assert "model.layers.1.mlp.down_proj.weight" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--texts", "no.txt"], "path=no.txt: no such file"),
        (["--block-size", "0"], "block_size=0: must be at least 1"),
        (["--skip-positions", "128"], "skip_positions=128"),
    ],
)
def test_what_cannot_be_measured(
    arguments: list[str], words: str, tiny_population: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_population / "base"), *arguments]) == 2
    assert words in capsys.readouterr().err
