"""Checkpoints written, matched, refused, and held as a live model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import checkpoint, tensors
from conftest import llama_config
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from aim_exp.checkpoint.fit import dtype_warnings, fit_problems
from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge import TaskArithmetic, Ties
from aim_exp.merge.stream import stream_checkpoint, stream_merge
from aim_exp.tensors.sink import Discard

SUM = TaskArithmetic(weight=1.0, scale=1.0)


def experts(family: Path) -> list[Checkpoint]:
    return [checkpoint(family, "a"), checkpoint(family, "b")]


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
