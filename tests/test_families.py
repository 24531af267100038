"""Every family of models: merge, relax, save, reload, compare every tensor."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from conftest import Cli
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from aim_exp.aim import AimSettings
from aim_exp.checkpoint.fit import fit_problems
from aim_exp.checkpoint.layerwise import LayerwiseModel
from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.modules import auto_class
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge import TaskArithmetic
from aim_exp.saliency import Saliency, measure, measure_layerwise
from aim_exp.streaming import Relaxation, stream_checkpoint, stream_merge

SETTINGS = AimSettings(statistic="mean_abs", scaling="identity", exclude=(), tied_head="keep")
SUM = TaskArithmetic(weight=1.0, scale=1.0)
OMEGA = 0.3

TEXT: dict[str, Any] = {
    "vocab_size": 768,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
NO_HEAD_DIM: dict[str, Any] = {key: value for key, value in TEXT.items() if key != "head_dim"}
MLA: dict[str, Any] = {**NO_HEAD_DIM, "num_key_value_heads": 4}
MROPE: dict[str, Any] = {
    **NO_HEAD_DIM,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 1]},
}
QWEN_IDS: dict[str, Any] = {
    "image_token_id": 760,
    "video_token_id": 761,
    "vision_start_token_id": 762,
}
GEMMA: dict[str, Any] = {
    **TEXT,
    "query_pre_attn_scalar": 6,
    "tie_word_embeddings": True,
    "sliding_window": 16,
}
SIGLIP: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@dataclass(frozen=True)
class Family:
    """A tiny config, how many of its tensors AIM relaxes, and how many there are.

    `hub_name` is what the hub's files call a tensor that transformers saves as given.
    """

    config: Callable[[], hf.PretrainedConfig]
    relaxed: int
    tensors: int
    hub_name: Callable[[str], str] = lambda name: name


def gpt2_name(name: str) -> str:
    return name.removeprefix("transformer.")


def qwen_vl_name(name: str) -> str:
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def llava_name(name: str) -> str:
    for old, new in {
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


FAMILIES = {
    "llama": Family(lambda: hf.LlamaConfig(**TEXT), 20, 21),
    "llama_tied": Family(lambda: hf.LlamaConfig(**{**TEXT, "tie_word_embeddings": True}), 19, 20),
    "mistral": Family(lambda: hf.MistralConfig(**TEXT, sliding_window=16), 20, 21),
    "qwen2": Family(lambda: hf.Qwen2Config(**NO_HEAD_DIM), 20, 27),
    "qwen3": Family(lambda: hf.Qwen3Config(**TEXT), 24, 25),
    "gemma2": Family(lambda: hf.Gemma2Config(**GEMMA), 23, 24),
    "gemma3_text": Family(lambda: hf.Gemma3TextConfig(**GEMMA), 27, 28),
    "gemma3": Family(
        lambda: hf.Gemma3Config(
            text_config=GEMMA, vision_config=SIGLIP, mm_tokens_per_image=4, image_token_index=760
        ),
        27,
        62,
        llava_name,
    ),
    "phi3": Family(lambda: hf.Phi3Config(**NO_HEAD_DIM), 14, 15),
    "olmo2": Family(lambda: hf.Olmo2Config(**NO_HEAD_DIM), 24, 25),
    "gpt2": Family(
        lambda: hf.GPT2Config(vocab_size=768, n_positions=128, n_embd=24, n_layer=2, n_head=2),
        13,
        28,
        gpt2_name,
    ),
    "qwen2_vl": Family(
        lambda: hf.Qwen2VLConfig(
            text_config=MROPE,
            vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 24, "num_heads": 2},
            **QWEN_IDS,
        ),
        20,
        46,
        qwen_vl_name,
    ),
    "qwen2_5_vl": Family(
        lambda: hf.Qwen2_5_VLConfig(
            text_config=MROPE,
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_heads": 2,
                "out_hidden_size": 24,
                "fullatt_block_indexes": [0],
            },
            **QWEN_IDS,
        ),
        20,
        45,
        qwen_vl_name,
    ),
    "llava": Family(
        lambda: hf.LlavaConfig(
            text_config=hf.LlamaConfig(**TEXT),
            vision_config=hf.CLIPVisionConfig(**{**SIGLIP, "num_hidden_layers": 2}),
            image_token_index=760,
        ),
        20,
        64,
        llava_name,
    ),
    "qwen3_moe": Family(
        lambda: hf.Qwen3MoeConfig(
            **TEXT, moe_intermediate_size=20, num_experts=4, num_experts_per_tok=2
        ),
        44,
        45,
    ),
    "mixtral": Family(
        lambda: hf.MixtralConfig(**TEXT, num_local_experts=4, num_experts_per_tok=2), 40, 41
    ),
    "deepseek_v3": Family(
        lambda: hf.DeepseekV3Config(
            **MLA,
            moe_intermediate_size=20,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_nope_head_dim=4,
            qk_rope_head_dim=4,
            v_head_dim=6,
        ),
        39,
        41,
    ),
}
NOT_REACHED = ("visual.", "vision_tower.", "multi_modal_projector.", "e_score_correction_bias")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "wpe.weight")


def tensors(folder: Path) -> dict[str, Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def save_family(kind: str, folder: Path, tokenizer: Path) -> None:
    """`base`, `a` and `b`, float32, in the names of the hub's files."""
    family = FAMILIES[kind]
    for index, name in enumerate(("base", "a", "b")):
        config = family.config()
        torch.manual_seed(3)
        is_text = config.model_type not in ("gemma3", "llava", "qwen2_vl", "qwen2_5_vl")
        auto: Any = hf.AutoModelForCausalLM if is_text else hf.AutoModelForImageTextToText
        model = auto.from_config(config)
        torch.manual_seed(index)
        for parameter in model.parameters():
            # Weights that are born as zeros or ones tell nothing.
            parameter.data += (0.02 if index else 0.0) * torch.randn_like(parameter)
            if not index and parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder / name)
        content = tensors(folder / name)
        (folder / name / "model.safetensors").unlink()
        renamed = {family.hub_name(key): value for key, value in content.items()}
        assert len(renamed) == len(content)
        save_file(renamed, folder / name / "model.safetensors", {"format": "pt"})
        for path in tokenizer.glob("*token*"):
            shutil.copy(path, folder / name)


@pytest.fixture(params=FAMILIES)
def saved(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_population: Path
) -> tuple[str, Path]:
    """A family's name and the folder of its three models."""
    save_family(request.param, tmp_path, tiny_population / "base")
    return request.param, tmp_path


def text_blocks() -> Tensor:
    return torch.randint(3, 700, (3, 32), generator=torch.Generator().manual_seed(0))


def saliency_of(live: LiveModel) -> Saliency:
    return measure(live.model, text_blocks(), "mean_abs", lambda n: None).on_checkpoint(live.places)


def test_the_families_are_these() -> None:
    assert len(FAMILIES) == 17


def test_merge_relax_save_reload(saved: tuple[str, Path]) -> None:
    family, folder = FAMILIES[saved[0]], saved[1]
    base, a, b = (Checkpoint(folder / name, name) for name in ("base", "a", "b"))
    live = LiveModel(folder / "base", "float32", "cpu")
    assert set(live.places) == set(base.tensors)
    saliency = saliency_of(live)
    with CheckpointWriter(folder / "out", base, None) as writer:
        relax = Relaxation(saliency, OMEGA, SETTINGS, 0)
        report = stream_merge(base, [a, b], SUM, writer, seed=0, relax=relax)

    # Every tensor is what the definition says, on the names of the files.
    start, first, second, out = (tensors(folder / name) for name in ("base", "a", "b", "out"))
    assert set(out) == set(start)
    assert saliency.unseen == []
    relaxed = set()
    for name, tensor in out.items():
        expected = first[name] + second[name] - start[name]
        if name in saliency.channels and name not in saliency.tied:
            s = saliency.channels[name]
            r = 1 - s / s.max() * (1 - OMEGA)
            r = r[:, None] if saliency.axes[name] == 0 and tensor.ndim == 2 else r
            expected = start[name] + (expected - start[name]) * r
            relaxed.add(name)
        torch.testing.assert_close(tensor, expected, msg=name)

    # All of the language tower is relaxed, but biases and embeddings, and nothing else is.
    reachable = {name for name in out if not any(part in name for part in NOT_REACHED)}
    wanted = {n for n in reachable if n.endswith("weight") and not n.endswith(EMBEDDINGS)}
    assert relaxed == wanted
    assert (len(relaxed), len(out)) == (family.relaxed, family.tensors)
    counts = report.summary()["all"]
    assert counts["parameters"] == sum(tensor.numel() for tensor in out.values())
    assert counts["relaxed_parameters"] == sum(out[name].numel() for name in wanted)

    # It loads, whole, and the live model that got the same weights answers the same.
    fresh, loading = auto_class(folder / "out").from_pretrained(
        folder / "out", dtype="auto", output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = text_blocks()[:1]
    with torch.no_grad():
        before = live.model(input_ids=ids).logits
        stream_checkpoint(Checkpoint(folder / "out", "out"), live)
        after = live.model(input_ids=ids).logits
        assert torch.equal(after, fresh.eval()(input_ids=ids).logits)
    assert not torch.equal(before, after)
    held = live.model.state_dict()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, held[name]), name


def test_saliency_is_each_modules_mean_input(saved: tuple[str, Path]) -> None:
    """By hooks that keep every input, under the names of the modules."""
    live = LiveModel(saved[1] / "base", "float32", "cpu")
    found = measure(live.model, text_blocks(), "mean_abs", lambda n: None)
    kept: dict[str, list[Tensor]] = {}
    for name, module in live.model.named_modules():
        if getattr(module, "weight", None) is None or isinstance(module, nn.Embedding):
            continue

        def keep(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            kept.setdefault(f"{name}.weight", []).append((*args, *kwargs.values())[0])

        module.register_forward_pre_hook(keep, with_kwargs=True)
        if f"{name}.weight" in found.axes:
            rows = module.weight.ndim == 1 or isinstance(module, Conv1D)
            assert found.axes[f"{name}.weight"] == (0 if rows else 1)
    run(live, text_blocks())
    plain = {name for name in found.channels if name.endswith("weight")}
    assert plain == set(kept)
    for name in plain:
        mean = torch.cat([x.double().abs().flatten(0, -2) for x in kept[name]]).mean(0)
        torch.testing.assert_close(found.channels[name], mean.float(), msg=name)


def run(live: LiveModel, blocks: Tensor) -> None:
    with torch.no_grad():
        for block in blocks:
            live.model(input_ids=block[None])


def test_buffers_of_old_files_are_passed_over(tmp_path: Path, tiny_population: Path) -> None:
    """transformers 4.31 saved the rotary frequencies, and GPT-2's files have its masks."""
    old = {"llama": "model.layers.0.self_attn.rotary_emb.inv_freq", "gpt2": "h.0.attn.bias"}
    for kind, buffer in old.items():
        save_family(kind, tmp_path / kind, tiny_population / "base")
        file = tmp_path / kind / "a" / "model.safetensors"
        save_file({**load_file(file), buffer: torch.ones(3)}, file, {"format": "pt"})
        base, a = (Checkpoint(tmp_path / kind / name, name) for name in ("base", "a"))
        assert fit_problems(base, [a]) == []
        live = LiveModel(a.folder, "float32", "cpu")  # by itself, and in base's place
        assert set(live.places) == set(a.tensors) - {buffer}
        held = {name: tensor.clone() for name, tensor in live.model.state_dict().items()}
        live = LiveModel(base.folder, "float32", "cpu")
        stream_checkpoint(a, live)
        assert all(torch.equal(held[name], t) for name, t in live.model.state_dict().items())


# Experts


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
    run(live, blocks)
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
    measured = measure(live.model, token, "mean_abs", lambda n: None)
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


# Layer by layer


def test_layer_by_layer_gives_the_same_statistics(saved: tuple[str, Path]) -> None:
    folder = saved[1] / "base"
    live = LiveModel(folder, "float32", "cpu")
    layerwise = LayerwiseModel(Checkpoint(folder, "base"), "float32", "cpu")
    assert layerwise.places == live.places
    whole = measure(live.model, text_blocks(), "mean_abs", lambda n: None)
    steps: list[int] = []
    parts = measure_layerwise(layerwise, text_blocks(), "mean_abs", steps.append)
    assert len(steps) == 3 * 2
    assert parts.axes == whole.axes
    assert parts.tied == whole.tied
    assert parts.tokens == whole.tokens
    assert parts.channels.keys() == whole.channels.keys()
    for name, channels in whole.channels.items():
        assert torch.equal(parts.channels[name], channels), name
    held = [p for layer in layerwise.layers for p in layer.parameters() if p.device.type != "meta"]
    assert held == []


def test_a_run_that_reads_layer_by_layer(cli: Cli, tmp_path: Path, family: Path) -> None:
    saliency = {}
    for offload in ("none", "layers"):
        cache = tmp_path / offload
        done = cli(
            "population=custom", f"population.base={family / 'base'}",
            f"population.experts={{a: {family / 'a'}}}", "benchmarks=none", "tracker=none",
            f"calibration.offload={offload}", f"hydra.run.dir=run_{offload}", cache=cache,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (saliency[offload],) = cache.glob("saliency/*")
    whole, parts = (Saliency.load(folder) for folder in saliency.values())
    assert saliency["none"].name == saliency["layers"].name  # the numbers are equal, so the key is
    assert whole.channels.keys() == parts.channels.keys()
    assert all(torch.equal(parts.channels[name], s) for name, s in whole.channels.items())


@pytest.mark.parametrize("kind", ["qwen2_vl", "mixtral"])
def test_a_run_from_weights_to_scores(
    kind: str, cli: Cli, tmp_path: Path, tiny_population: Path
) -> None:
    save_family(kind, tmp_path, tiny_population / "base")
    done = cli(
        "population=custom", f"population.base={tmp_path / 'base'}",
        f"population.experts={{a: {tmp_path / 'a'}, b: {tmp_path / 'b'}}}", "tracker=none",
        "benchmarks.limit=1", "benchmarks.generation={max_gen_toks: 4}",
        "calibration.n_samples=4", "evaluator.max_length=128", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(record["scores"]) == 6
    counts = record["relaxation"]["all"]
    assert 0 < counts["relaxed_parameters"] < counts["parameters"]
    assert counts["parameters"] == sum(t.numel() for t in tensors(tmp_path / "base").values())
