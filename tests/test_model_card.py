"""What a saved model carries: its card and its recipe; and the merge of another tool, relaxed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from conftest import Cli
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from run_records import responses_of
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from aim_exp.aim.calibration import TextFile
from aim_exp.aim.relaxation import relax
from aim_exp.config.build import build
from aim_exp.population.embedded.items import KINDS
from aim_exp.run.model_card import describe_model
from aim_exp.run.run import Run
from aim_exp.store.run_record import read_record

WEIGHTS = "model.safetensors"
BENCHMARKS = {f"tiny_{kind}" for kind in KINDS}


def rebuilt(model: Path) -> tuple[Run, Any]:
    """The run that a saved model's recipe describes, and the recipe."""
    recipe: Any = OmegaConf.load(model / "aim_exp.yaml")
    return build(recipe.config, recipe.choices), recipe


def mean_activations(folder: Path, blocks: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean |x| of the input of each module with a weight, by the weight's name."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in model.named_modules():
        if hasattr(module, "weight") and not isinstance(module, torch.nn.Embedding):
            rows = seen.setdefault(f"{name}.weight", [])
            module.register_forward_pre_hook(
                lambda _, inputs, rows=rows: rows.append(inputs[0].float().abs().flatten(0, -2))
            )
    with torch.no_grad():
        for block in blocks:
            model(block[None])
    return {name: torch.cat(rows).mean(0) for name, rows in seen.items()}


def table(card: str) -> dict[str, list[str]]:
    """The card's score table: the cells of each benchmark's row; `benchmark` is the heading."""
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_a_saved_model_carries_its_card_and_its_recipe(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "method=dare_ties", "population.merge=[code,math]", "save_model=true", "tracker=none",
        "benchmarks.limit=8", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    card = ModelCard.load(tmp_path / "run" / "model" / "README.md")
    assert card.data.to_dict() == {
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "aim-exp", "dare_ties"],
    }, "models of one's own have no place in the hub's tree"
    assert "omega 0.4" in card.text
    assert "calibration: tiny, n_samples" in card.text
    assert record["command"] in card.text
    rows = table(card.text)
    assert rows["benchmark"] == ["task", "base", "code", "instruct", "math", "merged"]
    assert set(rows) - {"benchmark"} == BENCHMARKS
    for name in BENCHMARKS:
        score, stderr = record["scores"][name], record["stderr"][name]
        assert rows[name][0] == f"aim_{name}"
        assert rows[name][-1] == f"{100 * score:.1f} ± {100 * stderr:.1f}"

    run, recipe = rebuilt(tmp_path / "run" / "model")
    assert run.plan.merged
    assert run.plan.merged.weights.key == recipe["keys"]["weights"]
    assert run.plan.merged.responses.key == responses_of(record)["merged"]
    assert recipe.versions.torch == torch.__version__
    assert list(recipe.models) == ["base", "code", "math"]


def test_hub_models_and_licence(cli: Cli, family: Path, tmp_path: Path) -> None:
    """Base and experts that have a hub id make the tree; base's card names the licence."""
    done = cli(
        "population=custom", f"population.base={family / 'base'}", "omega=null",
        f"population.experts={{a: {family / 'a'}, b: {family / 'b'}}}", "benchmarks=none",
        "tracker=none", "save_model=true", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    model = tmp_path / "run" / "model"
    plain = ModelCard.load(model / "README.md")
    assert "this is the plain merge" in plain.text
    assert "## Scores" not in plain.text

    run, _ = rebuilt(model)
    home = tmp_path / "hub"
    home.mkdir()
    (home / "README.md").write_text("---\nlicense: llama2\nlicense_link: LICENSE.txt\n---\nBase.\n")
    population = run.recipe.population
    a, b = population.experts
    population = replace(
        population,
        base=replace(population.base, path=home, identity="hub:org/base@abc"),
        experts=(replace(a, identity="hub:org/a@def"), replace(b, identity="blake3:0123")),
    )
    run = replace(run, recipe=replace(run.recipe, population=population))
    describe_model(home, run, read_record(tmp_path / "run"))
    card = ModelCard.load(home / "README.md")
    assert card.data.to_dict()["base_model"] == ["org/base", "org/a"]
    assert card.data.to_dict()["license"] == "llama2"
    assert card.data.to_dict()["license_link"] == "LICENSE.txt"
    assert "[org/a](https://huggingface.co/org/a) at `def`" in card.text
    assert "b: local, `blake3:0123`" in card.text
    recipe: Any = OmegaConf.load(home / "aim_exp.yaml")
    models = recipe.config.population  # at their commits, since a branch moves on
    assert (models.base, models.experts.a) == ("org/base@abc", "org/a@def")
    assert models.experts.b == str(family / "b")

    (home / "README.md").write_text("---\nlicense: [mit\n---\nNo YAML.\n")
    describe_model(home, run, read_record(tmp_path / "run"))
    assert "license" not in ModelCard.load(home / "README.md").data.to_dict()


def test_the_merge_of_another_tool_relaxed(cli: Cli, family: Path, tmp_path: Path) -> None:
    """Equal to `relax` of each tensor by the activations of base."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"A sentence with the number {i} in it." for i in range(40)))
    done = cli(
        "population=custom", f"population.base={family / 'base'}",
        f"population.experts={{a: {family / 'a'}}}", "method=checkpoint",
        f"method.path={family / 'b'}", "omega=0.3", "calibration=text",
        f"calibration.path={text}", "calibration.n_samples=30", "calibration.block_size=32",
        "benchmarks=none", "tracker=none", "save_model=true", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calibration = TextFile(
        path=str(text), n_samples=30, block_size=32, seed=42, add_special_tokens=True,
        long_texts="split", skip_positions=0, offload="none", per_expert=None,
    )  # fmt: skip
    blocks = calibration.blocks(AutoTokenizer.from_pretrained(family / "base"))
    activations = mean_activations(family / "base", blocks.ids)
    base, merged = (load_file(family / name / WEIGHTS) for name in ("base", "b"))
    written = load_file(tmp_path / "run" / "model" / WEIGHTS)
    assert set(base) - set(activations) == {"model.embed_tokens.weight"}
    for name, channels in activations.items():
        torch.testing.assert_close(written[name], relax(base[name], merged[name], channels, 0.3))
        assert not torch.equal(written[name], merged[name])
    assert torch.equal(written["model.embed_tokens.weight"], merged["model.embed_tokens.weight"])
    card = ModelCard.load(tmp_path / "run" / "model" / "README.md")
    assert "method: checkpoint" in card.text
    assert "- merged: local" in card.text
