"""Sets of test items: fresh for every replicate, never trained, asked by their benchmarks."""

import json
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from built_runs import built
from conftest import Cli

from aim_exp.errors import ConfigError
from aim_exp.evaluate.loading import load_task
from aim_exp.pareto import hypervolume
from aim_exp.population.embedded import items
from aim_exp.population.embedded.corpus import calibration_texts, test_texts, training_text

FRESH = [kind for kind in items.KINDS if kind not in items.FIXED]
test_texts.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # not a test


@pytest.mark.parametrize("kind", FRESH)
def test_sets_share_no_prompt_with_each_other_nor_with_training(kind: str) -> None:
    sets = [{item["prompt"] for item in items.test_items(kind, n)} for n in range(items.SETS)]
    assert [len(each) for each in sets] == [items.SET_SIZE] * items.SETS
    together = set().union(*sets)
    assert len(together) == items.SETS * items.SET_SIZE
    trained = {e.prompt for e in islice(items.training_examples(kind, Random(1)), 3000)}
    assert len(trained) > 500
    assert not trained & together


def test_what_is_fixed_is_the_same_in_every_set() -> None:
    assert set(items.FIXED) == {"mmlu", "continuation", "text"}
    for kind in items.FIXED:
        assert items.test_items(kind, 0) == items.test_items(kind, 7)


def test_text_to_test_with_is_in_no_other_text() -> None:
    texts = test_texts()
    assert 60 < len(texts) == len(set(texts))
    assert not set(texts) & {*calibration_texts(), *training_text()}
    for item, text in zip(items.test_items("continuation"), texts, strict=True):
        right = item["prompt"] + item["choices"][item["label"]]
        assert text.startswith(right)
        assert sum(text.startswith(item["prompt"] + choice) for choice in item["choices"]) == 1


def test_a_task_asks_the_set_of_its_seed(tmp_path: Path) -> None:
    suite = built(tmp_path, "benchmarks=held_out", "benchmarks.items_seed=3").recipe.suite
    assert len(suite.benchmarks) == 8
    assert len(suite.objectives) == 5
    for benchmark in suite.benchmarks:
        (task,) = load_task(suite, benchmark).tasks["tasks"].values()
        kind = benchmark.name.removeprefix("tiny_")
        key = "text" if kind == "text" else "prompt"
        docs: Any = task.eval_docs
        asked = [doc[key] for doc in docs]
        assert asked == [item[key] for item in items.test_items(kind, 3)], kind


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["benchmarks.items_seed=15"], "items_seed=15: must be one of 0 to 14"),
        (["benchmarks.items_seed=-1"], "items_seed=-1: must be one of 0 to 14"),
        (
            ["benchmarks=lm_eval", "benchmarks.tasks=[gsm8k]", "benchmarks.items_seed=1"],
            "items_seed=1: only the built-in tasks",
        ),
        (["+benchmarks.tasks.tiny_mmlu.objective=2"], "objective=2: must be true or false"),
    ],
)
def test_what_there_is_not_is_refused(overrides: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        built(tmp_path, *overrides)


def test_a_suite_needs_an_objective(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none is an objective"):
        built(
            tmp_path,
            "benchmarks=lm_eval",
            "benchmarks.tasks={a: {task: gsm8k, objective: false}}",
        )


def test_what_is_no_objective_is_scored_beside(cli: Cli, tmp_path: Path) -> None:
    cli("benchmarks=held_out", "benchmarks.limit=6", "method=linear", "omega=null",
        f"hydra.run.dir={tmp_path}")  # fmt: skip
    record = json.loads((tmp_path / "result.json").read_text())
    beside = {"tiny_mmlu", "tiny_continuation", "tiny_text"}
    assert len(record["scores"]) == 8
    assert beside < set(record["scores"])
    models = [*record["population_scores"].values(), record["scores"]]
    points = [[v for name, v in scores.items() if name not in beside] for scores in models]
    assert record["hypervolume"] == pytest.approx(hypervolume(points))
    assert 0 < record["scores"]["tiny_text"] < 1
