"""LoRA adapters as experts: the weights they make, what is refused, merges as of whole models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import LORA, save_adapter
from checkpoints import checkpoint, tensors
from conftest import Cli
from families import save_family
from safetensors.torch import save_file
from torch import Tensor

from aim_exp.checkpoint.adapters import AdaptedCheckpoint, open_model
from aim_exp.checkpoint.identity import identified, resolve_model
from aim_exp.checkpoint.matching import matched
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import AimError
from aim_exp.merge import Ties
from aim_exp.merge.stream import stream_merge
from aim_exp.types import ModelRef

LAYER = "model.layers.0."
LINEAR = {f"{LAYER}self_attn.q_proj": 2, f"{LAYER}mlp.down_proj": 3}
TIES = Ties(weight=1.0, scale=1.0, density=0.3, normalize=True, trim_scope="tensor")


class Kept:
    """A sink that keeps all."""

    def __init__(self) -> None:
        self.tensors: dict[str, dict[int, Tensor]] = {}

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        self.tensors.setdefault(name, {})[rows.start] = block.clone()

    @property
    def whole(self) -> dict[str, Tensor]:
        return {n: torch.cat([b[i] for i in sorted(b)]) for n, b in self.tensors.items()}


def adapted(folder: Path, base: str = "base") -> Checkpoint:
    return AdaptedCheckpoint(checkpoint(folder, base), folder / "x", folder / base, "x")


def resolved(folder: Path, memo: Path, base: str = "base") -> ModelRef:
    on = resolve_model("base", str(folder / base), "population.base", memo)
    return resolve_model("x", str(folder / "x"), "population.experts.x", memo, on)


def assert_equal(made: Checkpoint, expected: dict[str, Tensor]) -> None:
    assert made.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        ours = made.tensor(name)
        assert made.tensors[name].shape == tensor.shape
        torch.testing.assert_close(ours.double(), tensor, rtol=3e-7, atol=3e-7)


KINDS: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "ranks and scales of each module": (
        "llama", LINEAR,
        {"rank_pattern": {"down_proj": 3}, "alpha_pattern": {"layers.0.mlp.down_proj": 9}},
    ),
    "rslora": ("llama", dict.fromkeys(LINEAR, 4), {"r": 4, "use_rslora": True}),
    "dora": ("llama", dict.fromkeys(LINEAR, 2), {"use_dora": True}),
    "embedding and head": ("llama", {"model.embed_tokens": 2, "lm_head": 2}, {}),
    "in by out": ("gpt2", {"h.1.attn.c_proj": 2, "h.0.mlp.c_fc": 2}, {"fan_in_fan_out": True}),
    "in by out, dora": (
        "gpt2", {"h.1.attn.c_proj": 2}, {"fan_in_fan_out": True, "use_dora": True},
    ),
    "names of the model": (
        "qwen2_vl", {f"{LAYER}mlp.up_proj": 2}, {"renamed": ("model.", "model.language_model.")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_base_plus_scale_b_a(
    kind: str, tmp_path: Path, tiny_population: Path
) -> None:
    family, modules, settings = KINDS[kind]
    save_family(family, tmp_path, tiny_population / "base")
    base = tensors(tmp_path / "base")
    expected = save_adapter(tmp_path / "x", base, modules, **settings)
    made = adapted(tmp_path)
    assert_equal(made, expected)
    changed = {f"{module}.weight" for module in modules}
    assert {n for n in base if not made.tensor(n).equal(base[n])} == changed


def test_what_is_saved_whole_is_taken_whole(tmp_path: Path, tiny_population: Path) -> None:
    """`modules_to_save`, `bias`, and what an adapted embedding is added to."""
    save_family("qwen2", tmp_path, tiny_population / "base")
    base = tensors(tmp_path / "base")
    names = ("lm_head.weight", f"{LAYER}self_attn.q_proj.bias", "model.norm.weight")
    whole = {name: torch.randn_like(base[name]) for name in names}
    expected = save_adapter(
        tmp_path / "x", base, LINEAR, whole=whole, rank_pattern={"down_proj": 3}
    )
    assert_equal(adapted(tmp_path), expected)
    file = tmp_path / "x" / "adapter_model.safetensors"
    content = tensors(tmp_path / "x")
    embedding = torch.randn_like(base["model.embed_tokens.weight"])
    content["base_model.model.model.embed_tokens.base_layer.weight"] = embedding
    save_file(content, file)
    assert adapted(tmp_path).tensor("model.embed_tokens.weight").equal(embedding)


@pytest.mark.parametrize("saved", ["head", "embedding", "both", "both alike"])
def test_a_head_that_training_parted_from_the_embedding(
    saved: str, tmp_path: Path, tiny_population: Path
) -> None:
    save_family("llama_tied", tmp_path, tiny_population / "base")
    base = tensors(tmp_path / "base")
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    new = torch.randn(2, *base[embedding].shape)
    whole = {
        "head": {head: new[0]},
        "embedding": {embedding: new[0]},
        "both": {head: new[0], embedding: new[1]},
        "both alike": {head: new[0], embedding: new[0]},
    }[saved]
    save_adapter(tmp_path / "x", base, {}, whole=whole)
    expected = {**base, head: base[embedding], **whole}
    if saved == "both alike":
        del expected[head]
    made = adapted(tmp_path)
    assert {name: made.tensor(name).tolist() for name in made.tensors} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }
    save_adapter(tmp_path / "y", base, {}, whole=whole, ensure_weight_tying=True)
    tied = AdaptedCheckpoint(checkpoint(tmp_path, "base"), tmp_path / "y", tmp_path / "base", "y")
    if saved == "embedding":
        assert tied.tensors.keys() == base.keys()
        assert tied.tensor(embedding).equal(new[0])


def test_threads_and_blocks_change_no_bit(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a merge with adapters is that of the models that they make."""
    shutil.copytree(family / "base", tmp_path / "base")
    base = checkpoint(tmp_path, "base")
    stored = tensors(tmp_path / "base")
    save_adapter(tmp_path / "x", stored, LINEAR, rank_pattern={"down_proj": 3})
    expert = adapted(tmp_path)
    save_file({n: expert.tensor(n) for n in expert.tensors}, tmp_path / "x" / "model.safetensors")
    shutil.copy(tmp_path / "base" / "config.json", tmp_path / "x")
    merges = []
    whole = checkpoint(tmp_path, "x")
    cases = ((expert, 1, None), (expert, 3, 50), (expert, 2, 1 << 30), (whole, 1, 50))
    for model, threads, elements in cases:
        kept = Kept()
        if elements:
            monkeypatch.setattr("aim_exp.tensors.blocks.row_blocks.__defaults__", (elements,))
        first, others = matched(base, [model, checkpoint(family, "b")])
        stream_merge(first, others, TIES, kept, seed=0, threads=threads)
        merges.append(kept.whole)
    assert all(m[name].equal(merges[0][name]) for m in merges for name in merges[0])
    assert {n for n in stored if not merges[0][n].equal(stored[n])} == set(stored)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another kind": ({"peft_type": "IA3"}, {}, "peft_type is IA3, not LORA"),
    "another start": ({"init_lora_weights": "pissa"}, {}, "init_lora_weights=pissa changed base"),
    "replicated layers": ({"layer_replication": [[0, 2]]}, {}, "layer_replication=[[0, 2]] is not"),
    "biases of B": ({"lora_bias": True}, {}, "lora_bias=True is not supported"),
    "no rank": ({"r": None}, {}, "r and lora_alpha must be numbers"),
    "another rank": ({"r": 8}, {}, "q_proj: B [24, 2] and A [2, 24] of rank 8 do not fit"),
    "dora without magnitudes": ({"use_dora": True}, {}, "use_dora=True, unlike its tensors"),
    "no such module": (
        {}, {"model.layers.7.mlp.up_proj.lora_A.weight": torch.ones(2, 24)}, "has no such module",
    ),
    "half": ({}, {f"{LAYER}mlp.up_proj.lora_A.weight": torch.ones(2, 24)}, "B is missing"),
    "another shape": ({}, {"lm_head.weight": torch.ones(768, 7)}, "lm_head.weight: another shape"),
    "unknown": ({}, {"x.prompt_embeddings": torch.ones(2)}, "prompt_embeddings: base has no such"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_lora_is_refused_by_name(kind: str, family: Path, tmp_path: Path) -> None:
    settings, more, message = REFUSED[kind]
    shutil.copytree(family / "base", tmp_path / "base")
    save_adapter(tmp_path / "x", tensors(tmp_path / "base"), {f"{LAYER}self_attn.q_proj": 2})
    file = tmp_path / "x" / "adapter_model.safetensors"
    save_file(tensors(tmp_path / "x") | {f"base_model.model.{n}": t for n, t in more.items()}, file)
    (tmp_path / "x" / "adapter_config.json").write_text(json.dumps({**LORA, **settings}))
    with pytest.raises(AimError) as refused:
        resolved(tmp_path, tmp_path / "cache" / "digests")
    assert str(refused.value).startswith(f"x: adapter {tmp_path / 'x'}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("table", [[1], {"(": 3}, {"q_proj": "x"}, "x"])
def test_a_broken_table_of_settings_is_one_line(
    table: object, family: Path, tmp_path: Path
) -> None:
    shutil.copytree(family / "base", tmp_path / "base")
    save_adapter(tmp_path / "x", tensors(tmp_path / "base"), {f"{LAYER}self_attn.q_proj": 2})
    path = tmp_path / "x" / "adapter_config.json"
    path.write_text(json.dumps({**LORA, "rank_pattern": table}))
    with pytest.raises(AimError, match=f"^x: {path}: .+$"):
        resolved(tmp_path, tmp_path / "cache" / "digests")


def test_an_adapted_embedding_that_is_the_head_is_refused(
    tmp_path: Path, tiny_population: Path
) -> None:
    """peft's merged model changes both, its adapted one does not."""
    save_family("llama_tied", tmp_path, tiny_population / "base")
    save_adapter(tmp_path / "x", tensors(tmp_path / "base"), {"model.embed_tokens": 2})
    with pytest.raises(AimError, match=r"model\.embed_tokens: base's head is its embedding"):
        resolved(tmp_path, tmp_path / "cache" / "digests")


def test_an_adapter_is_known_with_its_base(family: Path, tmp_path: Path) -> None:
    shutil.copytree(family, tmp_path, dirs_exist_ok=True)
    memo = tmp_path / "cache" / "digests"
    save_adapter(tmp_path / "x", tensors(tmp_path / "base"), LINEAR, rank_pattern={"down_proj": 3})

    def identity(base: str = "base") -> str | None:
        return identified(resolved(tmp_path, memo, base), memo).identity

    first = identity()
    assert first == identity()
    assert identity("a") != first
    path = tmp_path / "x" / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 3', '"lora_alpha": 4'))
    assert identity() != first


def test_what_lies_beside_an_adapter_is_its_own(family: Path, tmp_path: Path) -> None:
    """Its tokenizer stands for base's; rows of new tokens are in its configuration."""
    shutil.copytree(family, tmp_path, dirs_exist_ok=True)
    base = tensors(tmp_path / "base")
    whole = {
        name: torch.cat([base[name], torch.ones(3, 24).bfloat16()])
        for name in ("model.embed_tokens.weight", "lm_head.weight")
    }
    save_adapter(tmp_path / "x", base, {}, whole=whole)
    settings = json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())
    (tmp_path / "x" / "tokenizer_config.json").write_text(json.dumps(settings | {"x": 1}))
    made = open_model(resolved(tmp_path, tmp_path / "cache" / "digests"))
    assert made.config["vocab_size"] == 771
    assert json.loads((made.folder / "tokenizer_config.json").read_text())["x"] == 1
    same = (tmp_path / "base" / "tokenizer.json").read_bytes()
    assert (made.folder / "tokenizer.json").read_bytes() == same
    assert made.tensor("lm_head.weight").shape == (771, 24)
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_of_adapters_and_a_model_is_that_of_the_models_they_make(
    cli: Cli, tiny_population: Path, tmp_path: Path
) -> None:
    """Three of different rank, one with a tokenizer, and a whole expert.

    Their activations count too; merged, relaxed, scored, saved.
    """
    base = tensors(tiny_population / "base")
    modules = [n.removesuffix(".weight") for n in base if "_proj" in n]
    written, given = {}, {}
    for rank, name in enumerate(("one", "two", "three"), start=1):
        expected = save_adapter(
            tmp_path / name, base, dict.fromkeys(modules[rank:], rank), r=rank, seed=rank,
            lora_alpha=0.1 * rank, base_model_name_or_path="org/base",
        )  # fmt: skip
        shutil.copytree(tiny_population / "base", tmp_path / f"whole {name}")
        made = {n: t.to(base[n].dtype) for n, t in expected.items()}
        save_file(made, tmp_path / f"whole {name}" / "model.safetensors")
        if name == "two":
            settings = json.loads((tiny_population / "base" / "tokenizer_config.json").read_text())
            for folder in (tmp_path / name, tmp_path / f"whole {name}"):
                (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"own": 1}))
        given[name], written[name] = tmp_path / name, tmp_path / f"whole {name}"
    runs = []
    for label, experts in (("adapters", given), ("whole", written)):
        table = ", ".join(
            f"{n}: '{p}'" for n, p in {**experts, "math": tiny_population / "math"}.items()
        )
        done = cli(
            "population=custom", f"population.base={tiny_population / 'base'}",
            f"population.experts={{{table}}}", "method=ties", "omega=0.4",
            "aim.saliency=mean", "benchmarks.limit=2", "save_model=true", "tracker=none",
            f"hydra.run.dir={label}",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        runs.append(json.loads((tmp_path / label / "result.json").read_text()))
    ours, theirs = runs
    assert len(ours["models"]) == 6
    for key in ("scores", "population_scores", "hypervolume"):
        assert ours[key] == theirs[key], key
    merges = [tensors(tmp_path / label / "model") for label in ("adapters", "whole")]
    assert merges[0].keys() == merges[1].keys() == base.keys()
    for name, tensor in merges[0].items():
        torch.testing.assert_close(tensor, merges[1][name], rtol=1e-6, atol=1e-6)
    changed = [n for n in base if not merges[0][n].equal(base[n])]
    assert len(changed) > len(modules)
    identities = {m["name"]: m["identity"] for m in ours["models"]}
    assert identities["one"].endswith(f" on {identities['base']}")
    assert [w for w in ours["warnings"] if "org/base" in w] == []
    card = (tmp_path / "adapters" / "model" / "README.md").read_text()
    assert card.count("an adapter, local, ") == 3
