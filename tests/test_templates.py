"""Chat templates: the model whose template each one is asked with, and the merge is saved with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from built_runs import built
from conftest import Cli
from transformers import AutoTokenizer

from aim_exp.checkpoint.live import LiveModel
from aim_exp.errors import ConfigError
from aim_exp.evaluate.harness import Harness
from aim_exp.run.plan import MERGED, Plan
from aim_exp.types import Suite

ASKED = "benchmarks.chat_template=true"


@pytest.fixture
def models(family: Path, tmp_path: Path) -> Path:
    """`base` has no template, `a` one of its own, `b` two."""
    folder = tmp_path / "models"
    shutil.copytree(family, folder)
    for name, template in {"a": text("a"), "b": {"default": text("b"), "brief": text("B")}}.items():
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder / name)
    return folder


def text(mark: str) -> str:
    return "{% for m in messages %}" + mark + ": {{ m.content }}{% endfor %}"


def population(folder: Path, *more: str) -> tuple[str, ...]:
    return (
        "population=custom", f"population.base={folder / 'base'}",
        f"population.experts={{a: {folder / 'a'}, b: {folder / 'b'}}}",
        "method=linear", "omega=null", "tracker=none", *more,
    )  # fmt: skip


def score_keys(plan: Plan) -> dict[str, str]:
    merged = plan.merged
    assert merged
    return {model.name: model.scores["tiny_ifeval"].key for model in (*plan.members, merged)}


def test_whose_template_a_model_takes_is_in_its_scores_keys(models: Path, tmp_path: Path) -> None:
    def keys(*overrides: str) -> dict[str, str]:
        return score_keys(built(tmp_path, *population(models, *overrides)).plan)

    plain = keys()
    assert keys("population.chat_template=a") == plain, "nobody uses one"
    by_a = keys("population.chat_template=a", ASKED)
    assert all(by_a[name] != plain[name] for name in plain)
    table = keys("population.chat_template={base: null, a: a, b: b, merged: a}", ASKED)
    assert {name for name in table if table[name] == by_a[name]} == {"a", MERGED}


def test_a_reference_brings_its_own(models: Path, tmp_path: Path) -> None:
    more = (f"population.references={{r: {models / 'b'}}}", ASKED)
    run = built(tmp_path, *population(models, "population.chat_template=a", *more))
    templates = run.recipe.templates
    assert {name: model and model.name for name, model in templates.items()} == {
        "base": "a", "a": "a", "b": "a", "r": "r", MERGED: "a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([ASKED], "the tokenizer of base has no such chat template (none); name a model"),
        (["population.chat_template=a", "benchmarks.chat_template=brief"],
         "benchmarks.chat_template=brief: the tokenizer of a has no such chat template (default)"),
        (["population.chat_template=c"],
         "population.chat_template=c: there is no such model; there are base, a, b"),
        (["population.chat_template={c: a}"],
         "population.chat_template.c: there is no such model; there are base, a, b, merged"),
        (["population.chat_template=[a]"], "population.chat_template=['a']: must be a model"),
        (["population.chat_template=base", "save_model=true"], "the tokenizer of base has no"),
    ],
)  # fmt: skip
def test_a_template_that_is_not_there_is_refused(
    overrides: list[str], words: str, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        built(tmp_path, *population(models, *overrides))
    assert len(refused.value.problems) == 1
    assert words in refused.value.problems[0]


def test_prompts_and_the_saved_model_have_the_chosen_template(
    cli: Cli, models: Path, tmp_path: Path
) -> None:
    overrides = population(
        models, "population.chat_template={base: null, a: b, b: b, merged: a}", ASKED,
        "benchmarks.limit=2",
    )  # fmt: skip
    done = cli(*overrides, "save_model=true", "hydra.run.dir=run", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["population"]["chat_template"] == {"base": None, "a": "b", "b": "b", MERGED: "a"}
    suite = built(tmp_path, *overrides).recipe.suite
    asked = {
        name: requests(tmp_path / "responses" / key / "responses.jsonl")
        for name, key in record["keys"]["responses"].items()
    }
    plain, by_a, by_b = (asked_with(suite, models, mark, tmp_path) for mark in (None, "a", "b"))
    assert len(plain | by_a | by_b) == 3 * len(plain)
    assert asked == {"base": plain, "a": by_b, "b": by_b, MERGED: by_a}
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model").chat_template == text("a")


def asked_with(suite: Suite, models: Path, mark: str | None, tmp_path: Path) -> set[str]:
    """The requests of a tokenizer that has this very template of its own, or is asked plainly."""
    live = LiveModel(models / "base", "bfloat16", "cpu")
    live.tokenizer.chat_template = text(mark) if mark else None
    harness = Harness.in_memory(live.model, live.tokenizer, batch_size=8)
    log = tmp_path / f"{mark}.jsonl"
    harness.evaluate(replace(suite, chat_template=mark is not None), suite.benchmarks, log)
    return requests(log)


def requests(log: Path) -> set[str]:
    return {json.loads(line)[0] for line in log.read_text().splitlines()}
