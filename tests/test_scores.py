"""Scores: the metric that is a benchmark's headline, and results written and read back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_suite import MMLU, SHORT, random_model

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.harness import Harness
from aim_exp.evaluate.metrics import Scores, headline
from aim_exp.evaluate.results import read_result, read_scores, write_result
from aim_exp.types import Benchmark

SCORES = Scores(
    task="some",
    n=10,
    metrics={"perplexity,none": 9.0, "bleu,none": 30.0, "acc,none": 0.5, "f1,none": float("nan")},
    stderrs={"perplexity,none": None, "bleu,none": 0.1, "acc,none": 0.2, "f1,none": None},
    higher_is_better={"perplexity": False, "bleu": True, "acc": True, "f1": True},
)


def test_the_first_usable_metric_is_the_default() -> None:
    result = headline(Benchmark("some", "some"), SCORES)
    assert (result.metric, result.score.value, result.score.stderr) == ("acc,none", 0.5, 0.2)
    assert set(result.metrics) == {"perplexity,none", "bleu,none", "acc,none"}  # JSON has no NaN


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("perplexity,none", "not one to maximise"),
        ("bleu,none", "30 is outside"),
        ("f1,none", "nan"),
        ("exact_match,none", "no such metric"),
    ],
)
def test_an_unusable_metric_is_refused(metric: str, reason: str) -> None:
    with pytest.raises(EvaluationError, match=reason) as caught:
        headline(Benchmark("some", "some", metric=metric), SCORES)
    assert str(caught.value).startswith(f"benchmark some (some).metric={metric}: ")
    assert "\n" not in str(caught.value)
    assert "acc,none" in str(caught.value)


def test_a_task_without_usable_metric_is_refused() -> None:
    scores = replace(SCORES, metrics={"perplexity,none": 9.0})
    with pytest.raises(EvaluationError, match="no usable metric; it gives perplexity,none"):
        headline(Benchmark("some", "some"), scores)


def test_results_survive_writing(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=16)
    evaluated = harness.evaluate(SHORT, [MMLU], tmp_path / "responses")["tiny_mmlu"]
    write_result(tmp_path, evaluated)
    assert read_scores(tmp_path) == evaluated.scores
    assert read_result(tmp_path, MMLU) == headline(MMLU, evaluated.scores)
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").open()]
    assert samples == list(map(json.loads, evaluated.samples))
    assert [sample["doc_id"] for sample in samples] == list(range(8))
    mean = sum(sample["metrics"]["acc"] for sample in samples) / 8
    assert mean == evaluated.scores.metrics["acc,none"]


def test_an_unreadable_result_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"scores\.json: not readable"):
        read_result(tmp_path, MMLU)
