"""Saliency by the definition, and merges that AIM relaxes by it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import checkpoint, tensors
from conftest import llama_config
from relaxations import SETTINGS
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from aim_exp.aim.measure import measure
from aim_exp.aim.pull import Relaxation
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge import Given, Linear
from aim_exp.merge.stream import stream_merge


def slow_saliency(model: nn.Module, blocks: Tensor) -> dict[str, Tensor]:
    """Every module's input by itself, kept whole, averaged at the end."""
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if getattr(module, "weight", None) is not None and not isinstance(module, nn.Embedding):
            module.register_forward_pre_hook(
                lambda m, args, name=name: seen.setdefault(f"{name}.weight", []).append(args[0])
            )
    with torch.no_grad():
        for block in blocks:
            model(input_ids=block[None])
    return {
        name: torch.cat([x.double().abs().flatten(0, -2) for x in inputs]).mean(0).float()
        for name, inputs in seen.items()
    }


def random_model(kind: str) -> nn.Module:
    torch.manual_seed(3)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=768, n_positions=64, n_embd=24, n_layer=2, n_head=2)
        return GPT2LMHeadModel(config).eval()
    if kind == "qwen3":
        config = Qwen3Config(
            vocab_size=768,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
        return Qwen3ForCausalLM(config).eval()
    return LlamaForCausalLM(llama_config(tied=kind == "tied")).eval()


@pytest.mark.parametrize("kind", ["untied", "tied", "gpt2", "qwen3"])
def test_saliency_is_the_mean_input_of_every_module(kind: str) -> None:
    model = random_model(kind)
    blocks = torch.randint(0, 768, (3, 16), generator=torch.Generator().manual_seed(0))
    steps: list[int] = []
    saliency = measure(model, blocks, steps.append)
    expected = slow_saliency(model, blocks)
    assert set(saliency.channels) == set(expected)
    for name, channels in expected.items():
        torch.testing.assert_close(saliency.channels[name], channels, msg=name)
    assert saliency.tokens == 48
    assert sum(steps) == 3
    weights = dict(model.named_parameters(remove_duplicate=False))
    for name, axis in saliency.axes.items():
        assert weights[name].shape[axis] == len(saliency.channels[name])
    conv1d = [name for name, axis in saliency.axes.items() if axis == 0 and weights[name].ndim == 2]
    assert len(conv1d) == (8 if kind == "gpt2" else 0)


def test_modules_that_share_an_input_are_measured_once() -> None:
    saliency = measure(random_model("untied"), torch.ones(1, 8, dtype=torch.long), print)
    layer = "model.layers.0.self_attn."
    q, k, o = (saliency.channels[f"{layer}{name}_proj.weight"] for name in "qko")
    assert q is k
    assert q is not o


def test_statistics_of_bfloat16_do_not_stagnate() -> None:
    model = random_model("untied")
    blocks = torch.randint(0, 768, (60, 16), generator=torch.Generator().manual_seed(0))
    exact = measure(model, blocks, lambda n: None)
    coarse = measure(model.bfloat16(), blocks, lambda n: None)
    for name, channels in exact.channels.items():
        relative = (coarse.channels[name] - channels).norm() / channels.norm()
        assert relative < 0.02, name


def test_rms_is_the_root_mean_square() -> None:
    model, blocks = random_model("untied"), torch.ones(1, 4, dtype=torch.long)
    x = model.get_input_embeddings()(blocks)
    saliency = measure(model, blocks, lambda n: None)
    norm = saliency.statistic("model.layers.0.input_layernorm.weight", "rms")
    torch.testing.assert_close(norm, x[0].square().mean(0).sqrt().detach())


def test_nan_activations_are_refused() -> None:
    model = random_model("untied")
    model.model.embed_tokens.weight.data[5] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite on this text"):
        measure(model, torch.full((1, 4), 5), lambda n: None)


# AIM


def saved_family(tmp_path: Path, kind: str) -> tuple[Checkpoint, Checkpoint, Saliency]:
    model = random_model(kind)
    blocks = torch.randint(0, 768, (2, 16), generator=torch.Generator().manual_seed(0))
    saliency = measure(model, blocks, lambda n: None)
    model.save_pretrained(tmp_path / "base")
    for parameter in model.parameters():
        parameter.data += 0.05
    model.save_pretrained(tmp_path / "a")
    saliency.save(tmp_path)
    return checkpoint(tmp_path, "base"), checkpoint(tmp_path, "a"), Saliency.load(tmp_path)


@pytest.mark.parametrize("tied_head", ["keep", "relax"])
@pytest.mark.parametrize("kind", ["untied", "tied", "gpt2", "qwen3"])
def test_the_stream_relaxes_by_the_definition(kind: str, tied_head: str, tmp_path: Path) -> None:
    base, expert, saliency = saved_family(tmp_path, kind)
    settings = replace(SETTINGS, exclude=("*.1.*norm.weight",), tied_head=tied_head)
    with CheckpointWriter(tmp_path / "out", base, None) as writer:
        relax = Relaxation(saliency, 0.3, settings, 0)
        stream_merge(base, [expert], Given(path=""), writer, seed=0, relax=relax)
    b, m, out = (tensors(tmp_path / name) for name in ("base", "a", "out"))
    relaxed = set()
    for name in b:
        source = name
        # GPT-2's checkpoint names lack the prefix that its modules have in the whole model.
        if kind == "gpt2" and name not in saliency.channels:
            source = f"transformer.{name}"
        embedding = name in ("model.embed_tokens.weight", "transformer.wte.weight", "wte.weight")
        if embedding and kind in ("tied", "gpt2") and tied_head == "relax":
            source = "lm_head.weight"
        excluded = ".1." in name and name.endswith("norm.weight")
        if source not in saliency.channels or excluded:
            assert torch.equal(out[name], m[name]), name
            continue
        s = saliency.channels[source]
        r = 1 - s / s.max() * (1 - 0.3)
        r = r[:, None] if saliency.axes[source] == 0 and b[name].ndim == 2 else r
        torch.testing.assert_close(out[name], b[name] + (m[name] - b[name]) * r, msg=name)
        relaxed.add(name)
    assert ("lm_head.weight" in relaxed) == (kind in ("untied", "qwen3"))
    assert not any(name.endswith("bias") for name in relaxed)
    matrices = {name for name in b if b[name].ndim == 2 and "embed" not in name}
    embeddings = {name for name in matrices if "wte" in name or "wpe" in name}
    assert matrices - embeddings <= relaxed


def test_omega_1_is_the_plain_merge_and_the_report_adds_up(tmp_path: Path) -> None:
    base, expert, saliency = saved_family(tmp_path, "untied")
    linear = Linear(weight=1.0)
    for name, omega in (("one", 1.0), ("less", 0.4)):
        with CheckpointWriter(tmp_path / name, base, None) as writer:
            relax = Relaxation(saliency, omega, SETTINGS, 0)
            report = stream_merge(base, [expert], linear, writer, seed=0, relax=relax).summary()
    with CheckpointWriter(tmp_path / "plain", base, None) as writer:
        stream_merge(base, [expert], linear, writer, seed=0)
    one, plain, less = (tensors(tmp_path / name) for name in ("one", "plain", "less"))
    assert all(torch.equal(one[name], plain[name]) for name in plain)
    b = tensors(tmp_path / "base")
    before = sum((plain[name] - b[name]).square().sum() for name in report_names(plain))
    after = sum((less[name] - b[name]).square().sum() for name in report_names(plain))
    assert report["all"]["norm"] == pytest.approx(float((after / before).sqrt()), rel=1e-4)
    assert report["all"]["parameters"] == sum(t.numel() for t in b.values())
    embedding = report["embed_tokens"]
    dose = {"mean_r": 1.0, "norm": 1.0, "outputs": 1.0}
    assert embedding == {"parameters": 768 * 24, "relaxed_parameters": 0, **dose}
    relaxed = report["all"]["parameters"] - embedding["parameters"]
    assert report["all"]["relaxed_parameters"] == relaxed
    assert 0.4 < report["q_proj"]["mean_r"] < 1


def report_names(content: dict[str, Tensor]) -> list[str]:
    return [name for name in content if "embed_tokens" not in name]
