"""Choices that tie: equal ones are asked once, near ones go to the first, and it is told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import LM
from tiny_suite import random_model

from aim_exp.evaluate.harness import Harness, evaluate_task
from aim_exp.evaluate.near_ties import NEAR
from aim_exp.types import Benchmark, Suite

WORDS = Benchmark("words", "words")
TASK = """
task: words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {0}/words.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{c}}}}"
doc_to_target: a
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""


def suite_of(folder: Path, items: list[dict[str, Any]]) -> Suite:
    (folder / "words.yaml").write_text(TASK.format(folder))
    (folder / "words.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return Suite("own", (WORDS,), task_folder=folder)


class Given(LM):
    """Answers each continuation with its number, of those that it was asked."""

    def __init__(self, likelihoods: dict[str, float]) -> None:
        super().__init__()
        self._likelihoods = likelihoods
        self.asked: list[str] = []

    def loglikelihood(self, requests):
        self.asked += [request.args[1] for request in requests]
        return [(self._likelihoods[request.args[1].strip()], False) for request in requests]

    def generate_until(self, requests):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("second", "right", "ties"),
    [(0.5 * NEAR, 0, 1), (-0.5 * NEAR, 0, 1), (3 * NEAR, 1, 0), (-3 * NEAR, 0, 0)],
)
def test_a_near_tie_goes_to_the_first_choice_and_is_counted(
    second: float, right: int, ties: int, tmp_path: Path
) -> None:
    items = [{"q": "?", "c": ["aa", "bb", "dd"], "a": right}, {"q": "!", "c": ["cc", "ee"], "a": 0}]
    model = Given({"aa": -1.0, "bb": -1.0 + second, "cc": -1.0, "dd": -3.0, "ee": -2.0})
    scores = evaluate_task(model, suite_of(tmp_path, items), WORDS).scores
    assert scores.metrics["acc,none"] == 1.0
    warnings = [text for text in scores.warnings if "as likely as each other" in text]
    assert [text.startswith(f"benchmark words: in {ties} of 2 items") for text in warnings] == (
        [True] * ties
    )


def test_a_tie_counts_for_the_metrics_of_the_task(tmp_path: Path) -> None:
    """Per character these two are as likely as each other, whole they are not."""
    items = [{"q": "?", "c": ["aa", "bbbb"], "a": 0}]
    suite = suite_of(tmp_path, items)
    model = Given({"aa": -1.0, "bbbb": -2.0 + NEAR})
    scores = evaluate_task(model, suite, WORDS).scores
    assert [scores.metrics[name] for name in ("acc,none", "acc_norm,none")] == [1.0, 1.0]
    assert len(scores.warnings) == 1
    text = (tmp_path / "words.yaml").read_text()
    (tmp_path / "words.yaml").write_text("\n".join(t for t in text.split("\n") if "norm" not in t))
    assert evaluate_task(model, replace(suite, limit=1), WORDS).scores.warnings == []


def test_equal_choices_are_asked_once_whatever_the_batch(tokenizer, tmp_path: Path) -> None:
    items = [
        {"q": f"{i} + 1 =", "c": [f" {i}", f" {j}", f" {i}", f" {i + j}"], "a": 0}
        for i in range(6)
        for j in (i, i + 1)
    ]
    suite, found = suite_of(tmp_path, items), []
    for size in (1, 3, 64):
        harness = Harness.in_memory(random_model(), tokenizer, batch_size=size)
        asked: list[int] = []
        ask = harness._lm.loglikelihood
        harness._lm.loglikelihood = lambda r, ask=ask, asked=asked: asked.append(len(r)) or ask(r)
        found.append(harness.evaluate(suite, [WORDS], tmp_path / f"responses_{size}")["words"])
        assert asked == [len({(item["q"], choice) for item in items for choice in item["c"]})]
    assert {evaluated.scores.metrics["acc,none"] for evaluated in found} == {
        found[0].scores.metrics["acc,none"]
    }
    for item in map(json.loads, found[0].items):
        first, _, third, _ = item["choices"]
        assert first == third
