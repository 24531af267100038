"""The embedded population in other coordinates: models are the same, merges need not be."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import Cli
from run_records import responses_of, result
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from aim_exp.population.rescaled import RescaledPopulation, rescaled
from aim_exp.store.entries import Store

SPREAD = 3


def source(coordinates: int) -> RescaledPopulation:
    return RescaledPopulation(
        name="rescaled", merge=None, references=None, chat_template=None, seed=0,
        coordinates=coordinates, spread=SPREAD,
    )  # fmt: skip


@torch.inference_mode()
def logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model(torch.arange(2, 66).reshape(2, 32)).logits


@pytest.fixture(scope="module")
def cache(tiny_population: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained population, and what is made of it here."""
    folder = tmp_path_factory.mktemp("cache")
    shutil.copytree(tiny_population.parent, folder / "population")
    return folder


def test_every_model_answers_as_before_to_the_last_bit(cache: Path) -> None:
    store = Store(cache)
    before, after = source(0).resolve(store), source(1).resolve(store)
    source(1).ensure(store, after)
    for old, new in zip((before.base, *before.experts), (after.base, *after.experts), strict=True):
        assert old.identity != new.identity
        assert torch.equal(logits(old.path), logits(new.path))
        weights = [load_file(model.path / "model.safetensors") for model in (old, new)]
        changed = [name for name in weights[0] if not weights[0][name].equal(weights[1][name])]
        kept = {"q_proj", "k_proj", "gate_proj", "o_proj", "down_proj", "lm_head"}
        assert kept <= {name.split(".")[-2] for name in changed}  # readers are shrunk
        assert "model.embed_tokens.weight" not in changed


def test_deltas_are_stretched_as_the_weights_are(tiny_population: Path) -> None:
    base, code = (load_file(tiny_population / n / "model.safetensors") for n in ("base", "code"))
    merged = {name: base[name] + 0.5 * (code[name] - base[name]) for name in base}
    stretched = [rescaled(weights, 1, SPREAD) for weights in (base, code, merged)]
    for name, tensor in stretched[2].items():
        delta = stretched[1][name] - stretched[0][name]
        assert torch.equal(tensor, stretched[0][name] + 0.5 * delta)


@pytest.mark.slow
def test_aim_is_another_merge_there_and_task_arithmetic_is_not(
    cli: Cli, cache: Path, tmp_path: Path
) -> None:
    done = cli(
        "-m", "experiment=ablation_coordinates", "population.coordinates=0,1",
        "method=task_arithmetic", "aim.column_norm=false", "benchmarks.limit=8", "tracker=none",
        "calibration.n_samples=4", "hydra.sweep.dir=s", cache=cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain, aim, plain_there, aim_there = (result(tmp_path / "s" / str(job)) for job in range(4))
    assert plain["scores"] == plain_there["scores"]
    assert responses_of(plain) != responses_of(plain_there)
    doses = [record["dose"]["all"]["outputs"] for record in (aim, aim_there)]
    assert abs(doses[0] - doses[1]) > 0.01


def test_what_is_no_spread_is_refused(cli: Cli) -> None:
    done = cli("population=rescaled", "population.spread=17", "plan=true")
    assert "population.spread=17: must be 0 to 16" in done.stderr
    assert done.returncode == 1
