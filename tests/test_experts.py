"""Mixtures of experts: each expert is measured on its own tokens, and relaxed by that."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from checkpoints import tensors
from families import OMEGA, SUM, run_blocks, saliency_of, save_family, text_blocks
from relaxations import SETTINGS
from torch import Tensor, nn

from aim_exp.aim.measure import measure
from aim_exp.aim.pull import Relaxation
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge.stream import stream_merge


@dataclass(frozen=True)
class Moe:
    """How a family's files call an expert's matrices, and the layers that have experts."""

    prefix: str
    gate: str
    up: str
    down: str
    layers: tuple[int, ...]


MOE = {
    "qwen3_moe": Moe("mlp.experts", "gate_proj", "up_proj", "down_proj", (0, 1)),
    "mixtral": Moe("block_sparse_moe.experts", "w1", "w3", "w2", (0, 1)),
    "deepseek_v3": Moe("mlp.experts", "gate_proj", "up_proj", "down_proj", (1,)),
}


@pytest.fixture(params=MOE)
def saved_moe(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_population: Path
) -> tuple[Moe, Path]:
    save_family(request.param, tmp_path, tiny_population / "base")
    return MOE[request.param], tmp_path


def routed_tokens(live: LiveModel, blocks: Tensor) -> dict[int, list[tuple[Tensor, Tensor]]]:
    """By layer, what its experts were called with: hidden states and chosen experts."""
    calls: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for index, layer in enumerate(live.model.model.layers):
        if hasattr(layer.mlp, "experts"):
            layer.mlp.experts.register_forward_pre_hook(
                lambda m, args, index=index: calls.setdefault(index, []).append(args[:2])
            )
    run_blocks(live, blocks)
    return calls


def test_an_expert_is_measured_on_its_own_tokens(saved_moe: tuple[Moe, Path]) -> None:
    moe, folder = saved_moe
    live = LiveModel(folder / "base", "float32", "cpu")
    saliency = saliency_of(live)
    files = tensors(folder / "base")
    calls = routed_tokens(live, text_blocks())
    assert tuple(calls) == moe.layers
    for layer, inputs in calls.items():
        for expert in range(4):
            xs = [x for h, chosen in inputs for x, e in zip(h, chosen, strict=True) if expert in e]
            x = torch.stack(xs)
            names = [
                f"model.layers.{layer}.{moe.prefix}.{expert}.{matrix}.weight"
                for matrix in (moe.gate, moe.up, moe.down)
            ]
            gate, up, _ = (files[name] for name in names)
            inner = nn.functional.silu(x @ gate.T) * (x @ up.T)
            for name, expected in zip(names, (x, x, inner), strict=True):
                mean = expected.abs().mean(0)
                torch.testing.assert_close(saliency.channels[name], mean, msg=name)
                assert saliency.axes[name] == 1


def test_an_expert_without_a_token_is_left_and_named(saved_moe: tuple[Moe, Path]) -> None:
    moe, folder = saved_moe
    live = LiveModel(folder / "base", "float32", "cpu")
    token = torch.tensor([[5]])
    measured = measure(live.model, token, lambda n: None)
    measured.on_checkpoint(live.places).save(folder)
    saliency = Saliency.load(folder)
    missed = {
        f"model.layers.{layer}.{moe.prefix}.{expert}.{matrix}.weight"
        for layer, ((_, chosen),) in routed_tokens(live, token).items()
        for expert in set(range(4)) - set(chosen.flatten().tolist())
        for matrix in (moe.gate, moe.up, moe.down)
    }
    assert len(missed) == 2 * 3 * len(moe.layers)  # each token goes to two of four experts
    assert set(saliency.unseen) == missed
    base, a = Checkpoint(folder / "base", "base"), Checkpoint(folder / "a", "a")
    with CheckpointWriter(folder / "out", base, None) as writer:
        relax = Relaxation(saliency, OMEGA, SETTINGS, 0)
        report = stream_merge(base, [a], SUM, writer, seed=0, relax=relax).summary()["all"]
    out, merged = tensors(folder / "out"), tensors(folder / "a")
    for name in missed:
        torch.testing.assert_close(out[name], merged[name], rtol=0, atol=1e-6)
    not_relaxed = report["parameters"] - report["relaxed_parameters"]
    assert not_relaxed == sum(out[n].numel() for n in out if n not in saliency.channels)
