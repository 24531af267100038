"""An expert is scored as it is: with its own settings and tokenizer where they are not base's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from built_runs import built
from conftest import Cli
from run_records import items_of
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aim_exp.checkpoint.companions import adapter_warnings, config_warnings, differ
from aim_exp.checkpoint.files import copy_companions
from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.reader import Checkpoint


def changed(
    source: Path, target: Path, file: str, change: Callable[[dict[str, Any]], None]
) -> Path:
    """A copy of a model with another JSON file beside its weights."""
    shutil.copytree(source, target)
    content = json.loads((target / file).read_text())
    change(content)
    (target / file).write_text(json.dumps(content))
    return target


CHANGES = [
    ("config.json", {"rms_norm_eps": 0.1}, True),
    ("config.json", {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, True),
    ("generation_config.json", {"eos_token_id": [2, 5]}, True),
    ("tokenizer_config.json", {"eos_token": "<pad>"}, True),
    ("config.json", {"transformers_version": "4.0", "dtype": "float32", "use_cache": False}, False),
    ("generation_config.json", {"transformers_version": "4.0"}, False),
]


@pytest.mark.parametrize(("file", "settings", "unlike"), CHANGES)
def test_what_makes_a_model_unlike_base(
    file: str, settings: dict[str, Any], unlike: bool, family: Path, tmp_path: Path
) -> None:
    other = changed(family / "a", tmp_path / "a", file, lambda content: content.update(settings))
    assert differ(Checkpoint(family / "base", "base"), Checkpoint(other, "a")) == unlike


@pytest.mark.slow
def test_an_expert_is_scored_with_its_own_settings(cli: Cli, family: Path, tmp_path: Path) -> None:
    """The answers of an expert are those of the same folder as a reference."""
    expert = changed(
        family / "a", tmp_path / "a", "config.json", lambda config: config.update(rms_norm_eps=0.1)
    )
    overrides = (
        "population=custom", f"population.base={family / 'base'}",
        f"population.experts={{a: {expert}, b: {family / 'b'}}}",
        f"population.references={{same: {expert}, plain: {family / 'a'}}}",
        "method=linear", "omega=null", "tracker=none", "benchmarks.limit=4",
    )  # fmt: skip
    assert built(tmp_path, *overrides).recipe.own_companions == {"a"}
    done = cli(*overrides, "hydra.run.dir=run", cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    answers = {
        model["name"]: items_of(tmp_path / "run", "tiny_mmlu", model["name"])
        for model in record["models"]
    }
    assert answers["a"] == answers["same"] != answers["plain"]
    assert "a: rms_norm_eps is 0.1, base's is 1e-06; the merge has base's" in record["warnings"]
    assert any(
        text.startswith("benchmarks=tiny: these are toy tasks") for text in record["warnings"]
    )


def test_tokens_are_not_warned_of(family: Path, tmp_path: Path) -> None:
    """A vocabulary is merged by its own rule, which says so itself."""
    other = changed(
        family / "a", tmp_path / "a", "config.json", lambda config: config.update(eos_token_id=7)
    )
    assert config_warnings(Checkpoint(family / "base", "base"), [Checkpoint(other, "a")]) == []


def test_a_tied_head_that_is_stored_counts_as_the_embedding(family: Path, tmp_path: Path) -> None:
    """Where it is equal to it: some files hold it, others of the same family do not."""
    tied = changed(
        family / "a", tmp_path / "a", "config.json",
        lambda config: config.update(tie_word_embeddings=True),
    )  # fmt: skip
    assert Checkpoint(family / "a", "a").head == Checkpoint(tied, "a").head == "lm_head.weight"
    tensors = load_file(tied / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tied / "model.safetensors", {"format": "pt"})
    assert "lm_head.weight" not in Checkpoint(tied, "a").tensors


def test_a_leftover_adapter_is_passed_over(family: Path, tmp_path: Path) -> None:
    """transformers obeys it where peft is installed, in place of the weights beside it."""
    model = tmp_path / "model"
    shutil.copytree(family / "a", model)
    before = {path.name for path in model.iterdir()} - {"model.safetensors"}
    leftover = {"peft_type": "LORA", "base_model_name_or_path": str(family / "b")}
    (model / "adapter_config.json").write_text(json.dumps(leftover))
    shutil.copy(family / "b" / "model.safetensors", model / "adapter_model.safetensors")
    for name in ("trainer_state.json", "training_args.bin", "requirements.txt"):
        (model / name).write_text("{}")
    whole, left = Checkpoint(family / "a", "whole"), Checkpoint(model, "left")
    (warning,) = adapter_warnings([whole, left])
    assert warning.startswith(f"left: {model}/adapter_config.json lies beside whole weights")
    (tmp_path / "copy").mkdir()
    copy_companions(model, tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == before
    live, ids = LiveModel(model, "bfloat16", "cpu"), torch.arange(20)[None]
    fresh = AutoModelForCausalLM.from_pretrained(family / "a").eval()
    with torch.no_grad():
        assert torch.equal(live.model(ids).logits, fresh(ids).logits)


def test_generation_follows_the_models_own_files(family: Path, tmp_path: Path) -> None:
    """As transformers reads them: generation_config.json, or else what config.json says of it."""
    model = tmp_path / "model"
    shutil.copytree(family / "a", model)
    for content in ({"eos_token_id": [2, 7], "max_new_tokens": 5}, None):
        if content is None:
            (model / "generation_config.json").unlink()
        else:
            (model / "generation_config.json").write_text(json.dumps(content))
        own = AutoModelForCausalLM.from_pretrained(model).generation_config.to_dict()
        assert LiveModel(model, "bfloat16", "cpu").model.generation_config.to_dict() == own
