"""How likely gold answers are: against slow, obvious code, on models of two layers."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suite import SHORT, Oracle, random_model, sliding_model

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.gold import BITS_PER_BYTE, LOGLIKELIHOOD
from aim_exp.evaluate.harness import Harness, evaluate_task
from aim_exp.evaluate.hf import LiveHFLM
from aim_exp.evaluate.loading import n_items
from aim_exp.evaluate.metrics import headline
from aim_exp.population.embedded.items import test_items
from aim_exp.types import Benchmark

TEXT = Benchmark("tiny_text", "aim_tiny_text", "byte_probability,none")
CONTINUATION = Benchmark("tiny_continuation", "aim_tiny_continuation", "acc_norm,none")
test_items.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # not a test


@torch.inference_mode()
def slow_nats(model, tokenizer, prompt: str, answer: str) -> float:
    """Of an answer behind a prompt, a token after the other."""
    start = tokenizer(prompt).input_ids
    ids = [*start, *tokenizer(answer, add_special_tokens=False).input_ids]
    logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logits[place - 1, ids[place]]) for place in range(len(start), len(ids)))


@pytest.mark.parametrize("benchmark", SHORT.benchmarks, ids=lambda b: b.name)
def test_every_item_has_its_gold_answers_likelihood(
    benchmark: Benchmark, tokenizer, tmp_path: Path
) -> None:
    model = random_model()
    harness, done = Harness.in_memory(model, tokenizer, batch_size=8), []
    evaluated = harness.evaluate(SHORT, [benchmark], tmp_path / "responses", done.append)
    scores, samples = evaluated[benchmark.name].scores, evaluated[benchmark.name].items
    slow, n_bytes = [], 0
    for item in test_items(benchmark.name.removeprefix("tiny_"))[: len(samples)]:
        gold = item["choices"][item["label"]] if "choices" in item else item["answer"]
        slow.append(slow_nats(model, tokenizer, item["prompt"], gold))
        n_bytes += len(gold.encode())
    likelihoods = [json.loads(sample)["metrics"][LOGLIKELIHOOD] for sample in samples]
    assert likelihoods == pytest.approx(slow, abs=1e-3)
    assert scores.metrics[f"{LOGLIKELIHOOD},none"] == pytest.approx(sum(slow) / 8, abs=1e-3)
    bits = -sum(slow) / math.log(2) / n_bytes
    assert scores.metrics[f"{BITS_PER_BYTE},none"] == pytest.approx(bits, abs=1e-3)
    assert all(scores.stderrs[f"{name},none"] for name in (LOGLIKELIHOOD, BITS_PER_BYTE))
    assert sum(done) == n_items(SHORT, benchmark)
    kept = contents(tmp_path / "responses")
    assert harness.evaluate(SHORT, [benchmark], tmp_path / "responses") == evaluated
    assert contents(tmp_path / "responses") == kept  # nothing was asked again


@pytest.mark.parametrize("make", [random_model, sliding_model])
def test_a_prompt_is_computed_once_for_its_answer_and_its_gold_answer(
    make, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = [b for b in SHORT.benchmarks if "answer" in test_items(b.name[5:])[0]]
    assert len(generated) == 5
    model = make()

    def outcomes(folder: str) -> list[dict[str, Any]]:
        harness = Harness.in_memory(model, tokenizer, batch_size=3)
        evaluated = harness.evaluate(SHORT, generated, tmp_path / folder)
        return [json.loads(line) for each in evaluated.values() for line in each.items]

    beside = outcomes("beside")
    with monkeypatch.context() as patch:
        patch.setattr("aim_exp.evaluate.harness.gold_columns", lambda tasks: {})
        behind = outcomes("behind")
    gold = [[line["metrics"].pop(LOGLIKELIHOOD) for line in each] for each in (beside, behind)]
    assert gold[0] == pytest.approx(gold[1], abs=1e-4)
    assert beside == behind

    def never(*_: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(LiveHFLM, "_loglikelihood_tokens", never)
    assert len(outcomes("once")) == len(beside) == 5 * 8


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_they_are_no_objectives() -> None:
    for benchmark in SHORT.benchmarks:
        scores = evaluate_task(Oracle(), SHORT, benchmark).scores
        assert headline(benchmark, scores).metric not in (LOGLIKELIHOOD, BITS_PER_BYTE)
    with pytest.raises(EvaluationError, match="not one to maximise"):
        headline(replace(benchmark, metric=f"{BITS_PER_BYTE},none"), scores)


def test_held_out_text_is_scored_in_bits_per_byte(tokenizer, tmp_path: Path) -> None:
    model = random_model(positions=1024)
    harness = Harness.in_memory(model, tokenizer, batch_size=8)
    scores = harness.evaluate(SHORT, [TEXT], tmp_path / "responses")["tiny_text"].scores
    texts = [item["text"] for item in test_items("text")[:8]]
    # lm-eval begins every text with `<s>`, and with it the one that this tokenizer puts there.
    nats = sum(slow_nats(model, tokenizer, "", tokenizer.bos_token + text) for text in texts)
    bits = -nats / math.log(2) / sum(len(text.encode()) for text in texts)
    assert scores.metrics["bits_per_byte,none"] == pytest.approx(bits, rel=1e-3)
    score = headline(TEXT, scores).score
    assert score.value == pytest.approx(2**-bits, rel=1e-3)
    assert score.n == 8
    assert score.stderr


def test_continuations_are_by_chance_for_a_random_model(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=64)
    suite = replace(SHORT, limit=None)
    scores = harness.evaluate(suite, [CONTINUATION], tmp_path / "r")["tiny_continuation"].scores
    assert headline(CONTINUATION, scores).score.n == len(test_items("continuation"))
    assert 0.05 < headline(CONTINUATION, scores).score.value < 0.5
