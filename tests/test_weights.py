"""Weights from end to end: checkpoints in, saliency, merge, AIM, checkpoint out."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import llama_config
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from aim_exp.aim import AimSettings
from aim_exp.checkpoint.fit import dtype_warnings, fit_problems
from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge import Given, Linear, TaskArithmetic, Ties
from aim_exp.saliency import Saliency, measure
from aim_exp.streaming import Discard, Relaxation, stream_checkpoint, stream_merge

SETTINGS = AimSettings(statistic="mean_abs", scaling="identity", exclude=(), tied_head="keep")
SUM = TaskArithmetic(weight=1.0, scale=1.0)


def checkpoint(folder: Path, name: str) -> Checkpoint:
    return Checkpoint(folder / name, name)


def experts(family: Path) -> list[Checkpoint]:
    return [checkpoint(family, "a"), checkpoint(family, "b")]


def tensors(folder: Path) -> dict[str, Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_a_written_checkpoint_is_base_in_all_but_values(
    family: Path, tmp_path: Path, shard_bytes: int
) -> None:
    base = checkpoint(family, "base")
    with CheckpointWriter(tmp_path / "model", base, None, shard_bytes) as writer:
        stream_merge(base, experts(family), SUM, writer, seed=0)
    files = list((tmp_path / "model").glob("*.safetensors"))
    assert (len(files) > 1) == (shard_bytes < 10**9)
    model, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype="auto", output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.bfloat16
    written, names = tensors(tmp_path / "model"), set(base.tensors)
    assert set(written) == names
    b, x, y = (tensors(family / name) for name in ("base", "a", "b"))
    for name in names:
        expected = x[name].float() + y[name].float() - b[name].float()
        torch.testing.assert_close(written[name], expected.bfloat16(), msg=name)
    for companion in ("config.json", "generation_config.json", "tokenizer.json"):
        copied = (tmp_path / "model" / companion).read_bytes()
        assert copied == (family / "base" / companion).read_bytes()
    AutoTokenizer.from_pretrained(tmp_path / "model")
    # What was sharded reads back the same.
    reread = Checkpoint(tmp_path / "model", "merged")
    assert all(torch.equal(reread.tensor(name), written[name]) for name in names)
    assert fit_problems(base, [reread]) == []


def test_another_dtype_is_in_the_config_too(family: Path, tmp_path: Path) -> None:
    base = checkpoint(family, "base")
    with CheckpointWriter(tmp_path / "model", base, "float32") as writer:
        stream_merge(base, experts(family), SUM, writer, seed=0, dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert model.dtype == torch.float32


def test_a_writer_that_fails_leaves_nothing(family: Path, tmp_path: Path) -> None:
    base = checkpoint(family, "base")
    with pytest.raises(RuntimeError), CheckpointWriter(tmp_path / "model", base, None):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_belong_together_is_named(family: Path, tmp_path: Path) -> None:
    base = checkpoint(family, "base")

    def changed(name: str, change: dict[str, Tensor | None], **config: object) -> Checkpoint:
        folder = tmp_path / name
        shutil.copytree(family / "a", folder)
        content = {**load_file(folder / "model.safetensors"), **change}
        save_file({k: v for k, v in content.items() if v is not None}, folder / "model.safetensors")
        written = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(written))
        return Checkpoint(folder, name)

    norm = "model.norm.weight"
    cases = {
        "lacks model.norm.weight": changed("lacks", {norm: None}),
        "has extra.weight beyond base's": changed("more", {"extra.weight": torch.zeros(1)}),
        "shape [7], base's has [24]": changed("shape", {norm: torch.zeros(7)}),
        "vocab_size in config.json 769": changed("vocabulary", {}, vocab_size=769),
        "model_type is mistral": changed("architecture", {}, model_type="mistral"),
    }
    for words, other in cases.items():
        (problem,) = fit_problems(base, [other])
        assert words in problem
        assert problem.startswith(f"{other.label}: ")
        assert "\n" not in problem
    assert fit_problems(base, experts(family)) == []


def test_unreadable_checkpoints_are_named(family: Path, tmp_path: Path) -> None:
    base = checkpoint(family, "base")
    for name in ("cut", "empty", "noindex"):
        shutil.copytree(family / "a", tmp_path / name)
    whole = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty" / "model.safetensors").unlink()
    (tmp_path / "noindex" / "model.safetensors").unlink()
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
    (tmp_path / "noindex" / "model.safetensors.index.json").write_text(json.dumps(index))
    others = [checkpoint(tmp_path, name) for name in ("cut", "empty", "noindex", "gone")]
    problems = fit_problems(base, others)
    expected = ("not a readable safetensors", "holds no model.safetensors", "lacks", "not a folder")
    for problem, words in zip(problems, expected, strict=True):
        assert words in problem


def test_different_dtypes_are_warned_of(family: Path, tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path / "wide", checkpoint(family, "a"), "float32") as writer:
        stream_checkpoint(checkpoint(family, "a"), writer)
    (warning,) = dtype_warnings(
        checkpoint(family, "base"), [checkpoint(family, "b"), checkpoint(tmp_path, "wide")]
    )
    assert warning.startswith("wide is stored in float32, base in bfloat16")


def test_nan_in_weights_is_refused_wherever_it_is(family: Path, tmp_path: Path) -> None:
    for name in ("base", "a"):
        shutil.copytree(family / name, tmp_path / name)
        content = load_file(tmp_path / name / "model.safetensors")
        content["model.layers.1.mlp.up_proj.weight"][3, 3] = float("inf")
        save_file(content, tmp_path / name / "model.safetensors")
    words = r"tensor model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinite"
    ties = Ties(weight=1.0, scale=1.0, density=0.2, normalize=True)
    good_base, bad_base = checkpoint(family, "base"), checkpoint(tmp_path, "base")
    with pytest.raises(ValueError, match=f"a: {words}"):
        stream_merge(good_base, [checkpoint(tmp_path, "a")], ties, Discard(), seed=0)
    with pytest.raises(ValueError, match=f"base: {words}"):
        stream_merge(bad_base, experts(family), ties, Discard(), seed=0)
    with pytest.raises(ValueError, match=f"base: {words}"):
        stream_checkpoint(bad_base, Discard())
    huge = TaskArithmetic(weight=1e6, scale=1e6)
    with pytest.raises(ValueError, match="merged model"):
        stream_merge(good_base, experts(family), huge, Discard(), seed=0, dtype="float16")


# Saliency and AIM


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
    found = measure(model, blocks, "mean_abs", steps.append)
    expected = slow_saliency(model, blocks)
    assert set(found.channels) == set(expected)
    for name, channels in expected.items():
        torch.testing.assert_close(found.channels[name], channels, msg=name)
    assert found.tokens == 48
    assert sum(steps) == 3
    weights = dict(model.named_parameters(remove_duplicate=False))
    for name, axis in found.axes.items():
        assert weights[name].shape[axis] == len(found.channels[name])
    conv1d = [name for name, axis in found.axes.items() if axis == 0 and weights[name].ndim == 2]
    assert len(conv1d) == (8 if kind == "gpt2" else 0)


def test_modules_that_share_an_input_are_measured_once() -> None:
    found = measure(random_model("untied"), torch.ones(1, 8, dtype=torch.long), "mean_abs", print)
    layer = "model.layers.0.self_attn."
    q, k, o = (found.channels[f"{layer}{name}_proj.weight"] for name in "qko")
    assert q is k
    assert q is not o


def test_statistics_of_bfloat16_do_not_stagnate() -> None:
    model = random_model("untied")
    blocks = torch.randint(0, 768, (60, 16), generator=torch.Generator().manual_seed(0))
    exact = measure(model, blocks, "mean_abs", lambda n: None)
    coarse = measure(model.bfloat16(), blocks, "mean_abs", lambda n: None)
    for name, channels in exact.channels.items():
        relative = (coarse.channels[name] - channels).norm() / channels.norm()
        assert relative < 0.02, name


def test_rms_is_the_root_mean_square() -> None:
    model, blocks = random_model("untied"), torch.ones(1, 4, dtype=torch.long)
    x = model.get_input_embeddings()(blocks)
    found = measure(model, blocks, "rms", lambda n: None)
    norm = found.channels["model.layers.0.input_layernorm.weight"]
    torch.testing.assert_close(norm, x[0].square().mean(0).sqrt().detach())


def test_nan_activations_are_refused() -> None:
    model = random_model("untied")
    model.model.embed_tokens.weight.data[5] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite on this text"):
        measure(model, torch.full((1, 4), 5), "mean_abs", lambda n: None)


def saved_family(tmp_path: Path, kind: str) -> tuple[Checkpoint, Checkpoint, Saliency]:
    model = random_model(kind)
    blocks = torch.randint(0, 768, (2, 16), generator=torch.Generator().manual_seed(0))
    saliency = measure(model, blocks, "mean_abs", lambda n: None)
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
    settings = AimSettings(
        statistic="mean_abs", scaling="identity", exclude=("*.1.*norm.weight",), tied_head=tied_head
    )
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
    assert report["all"]["delta_kept"] == pytest.approx(float((after / before).sqrt()), rel=1e-4)
    assert report["all"]["parameters"] == sum(t.numel() for t in b.values())
    embedding = report["embed_tokens"]
    assert embedding == {"parameters": 768 * 24, "relaxed_parameters": 0}
    relaxed = report["all"]["parameters"] - embedding["parameters"]
    assert report["all"]["relaxed_parameters"] == relaxed
    assert 0.4 < report["q_proj"]["mean_r"] < 1


def report_names(content: dict[str, Tensor]) -> list[str]:
    return [name for name in content if "embed_tokens" not in name]


# The live model


@pytest.mark.parametrize("tied", [False, True])
def test_swapped_weights_are_a_freshly_loaded_model(
    tied: bool, tiny_population: Path, tmp_path: Path
) -> None:
    for index, name in enumerate(("base", "a")):
        torch.manual_seed(index)
        LlamaForCausalLM(llama_config(tied=tied)).save_pretrained(tmp_path / name)
    AutoTokenizer.from_pretrained(tiny_population / "base").save_pretrained(tmp_path / "base")
    model = LiveModel(tmp_path / "base", "float32", "cpu")
    stream_checkpoint(checkpoint(tmp_path, "a"), model)
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "a").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(model.model(ids).logits, fresh(ids).logits)


def test_a_checkpoint_that_lacks_a_tensor_is_no_live_model(family: Path, tmp_path: Path) -> None:
    shutil.copytree(family / "a", tmp_path / "a")
    content = load_file(tmp_path / "a" / "model.safetensors")
    del content["model.norm.weight"]
    save_file(content, tmp_path / "a" / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing keys: model\.norm\.weight"):
        LiveModel(tmp_path / "a", "float32", "cpu")
