"""Items that come in families: the standard error is that of the families."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from test_near_ties import WORDS, Given, suite_of

from aim_exp.config.schema import BenchmarksConfig
from aim_exp.errors import EvaluationError
from aim_exp.evaluate.harness import evaluate_task
from aim_exp.evaluate.loading import load_task
from aim_exp.evaluate.spec import task_spec
from aim_exp.evaluate.suite import build_suite

FAMILIES = ["a", "a", "a", "b", "b", "c"]
RIGHT = [1, 1, 1, 0, 1, 0]
ITEMS = [
    {"q": "?", "c": ["aa", "bb"], "a": 1 - right, "passage": family}
    for family, right in zip(FAMILIES, RIGHT, strict=True)
]
MODEL = {"aa": -1.0, "bb": -2.0}


def slow(values: list[int], families: list[str]) -> float:
    """Residuals summed by family, squared, over the number of items."""
    mean, names = float(np.mean(values)), sorted(set(families))
    sums = [sum(v - mean for v, f in zip(values, families, strict=True) if f == n) for n in names]
    correction = len(names) / (len(names) - 1)
    return float(np.sqrt(correction * sum(each**2 for each in sums)) / len(values))


def test_the_standard_error_is_that_of_the_families(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, ITEMS)
    plain = evaluate_task(Given(MODEL), suite, WORDS).scores
    clustered = evaluate_task(Given(MODEL), suite, replace(WORDS, cluster="passage")).scores
    assert clustered.metrics == plain.metrics
    assert clustered.stderrs["acc,none"] == pytest.approx(slow(RIGHT, FAMILIES))
    assert clustered.stderrs["acc,none"] != pytest.approx(plain.stderrs["acc,none"])


def test_the_tasks_of_a_group_are_families(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, ITEMS[:4])
    text = (tmp_path / "words.yaml").read_text()
    (tmp_path / "more.yaml").write_text(text.replace("words", "more"))
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS[4:]))
    (tmp_path / "both.yaml").write_text(
        "group: both\ntask: [words, more]\naggregate_metric_list:\n"
        "  - {metric: acc, weight_by_size: true}\n"
    )
    group = replace(WORDS, name="both", task="both", cluster="task")
    scores = evaluate_task(Given(MODEL), suite, group).scores
    expected = slow(RIGHT, ["words"] * 4 + ["more"] * 2)
    assert scores.stderrs["acc,none"] == pytest.approx(expected)


def test_it_is_in_the_scores_key_alone(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, ITEMS)
    assert task_spec(suite, WORDS) != task_spec(suite, replace(WORDS, cluster="passage"))
    assert "cluster" not in task_spec(suite, WORDS)


def test_a_column_that_is_not_there_is_refused_as_the_task_is_loaded(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, ITEMS)
    words = "benchmarks.tasks.words.cluster=chapter: the items of words have no such column"
    with pytest.raises(EvaluationError, match=words):
        load_task(suite, replace(WORDS, cluster="chapter"))


def test_the_configuration_says_it() -> None:
    tasks = {
        "words": {"task": "words", "cluster": "passage"},
        "others": {"task": "o", "cluster": 3},
    }
    problems: list[str] = []
    config = OmegaConf.structured(BenchmarksConfig(tasks=tasks))
    suite = build_suite(config, "own", problems)
    assert problems == ["benchmarks.tasks.others.cluster=3: must be a name, as text"]
    assert suite is None or suite.benchmarks[0].cluster == "passage"
