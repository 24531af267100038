"""Checkpoints written, matched, refused, and held as a live model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from built_runs import built
from checkpoints import checkpoint, tensors
from conftest import llama_config
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from aim_exp.checkpoint import companions
from aim_exp.checkpoint.fit import dtype_warnings, equality_warnings, fit_problems
from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.varying import idle
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge import TaskArithmetic, Ties
from aim_exp.merge.stream import stream_checkpoint, stream_merge
from aim_exp.run.pipeline import Pipeline
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
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype="auto", output_loading_info=True
    )
    model, loading = loaded
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
    ties = Ties(weight=1.0, scale=1.0, density=0.2, normalize=True, trim_scope="tensor")
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


# As a person would want to know


def test_equal_weights_are_warned_of(family: Path, tmp_path: Path) -> None:
    """Also in another dtype and other files; not where one value differs."""
    base, a, b = (checkpoint(family, name) for name in ("base", "a", "b"))
    assert equality_warnings(base, [a, b]) == []
    with CheckpointWriter(tmp_path / "wide", a, "float32") as writer:
        stream_checkpoint(a, writer)
    with CheckpointWriter(tmp_path / "near", a, "float32") as writer:
        stream_checkpoint(a, writer)
    content = load_file(tmp_path / "near" / "model.safetensors")
    content["model.norm.weight"][-1] += 1e-6
    save_file(content, tmp_path / "near" / "model.safetensors", {"format": "pt"})
    again = Checkpoint(base.folder, "again")
    others = [a, again, checkpoint(tmp_path, "wide"), checkpoint(tmp_path, "near")]
    one, other = equality_warnings(base, others)
    assert one.startswith("again: its weights are those of base; is ")
    assert other.startswith("wide: its weights are those of a; is ")


def test_patterns_that_leave_nothing_alone(family: Path) -> None:
    names = checkpoint(family, "base").tensors
    assert idle(names, ["*norm*", "lm_head", "*.self_atn.*"]) == [
        "lm_head",
        "*.self_atn.*",
    ]


@pytest.mark.parametrize("architectures", [["LLaMAForCausalLM"], None])
def test_an_architecture_is_what_is_built(
    architectures: list[str] | None, family: Path, tmp_path: Path
) -> None:
    shutil.copytree(family / "a", tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    config = json.loads(path.read_text()) | {"architectures": architectures}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    base, a = checkpoint(family, "base"), checkpoint(tmp_path, "a")
    assert fit_problems(base, [a]) == []
    assert not companions.differ(base, a)


def test_code_in_a_folder_is_never_run(family: Path, tmp_path: Path) -> None:
    for name in ("base", "a"):
        shutil.copytree(family / name, tmp_path / name)
        path = tmp_path / name / "config.json"
        own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
        (tmp_path / name / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    given = ("population=custom", f"population.base={tmp_path / 'base'}", "tracker=none",
             f"population.experts={{a: {tmp_path / 'a'}}}")  # fmt: skip
    for asked in ("omega=0.4", "benchmarks=tiny"):
        other = "benchmarks=none" if asked == "omega=0.4" else "omega=null"
        with pytest.raises(
            ValueError, match=r"base: its architecture is code in .*never run; only"
        ):
            built(tmp_path / "cache", *given, asked, other)
    run = built(tmp_path / "cache", *given, "omega=null", "benchmarks=none", "save_model=true")
    (tmp_path / "run").mkdir()
    Pipeline(run, tmp_path / "run").execute()
    assert (tmp_path / "run" / "model" / "mine.py").is_file()
    assert not (tmp_path / "ran").exists()
