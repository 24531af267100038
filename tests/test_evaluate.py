"""Scoring through lm-eval: the built-in tasks, resuming, and how prompts are made."""

import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_suite import IFEVAL, MMLU, SHORT, TINY, Oracle, random_model, task_file, write_tasks

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.harness import Harness, evaluate_task
from aim_exp.evaluate.loading import load_task, n_items
from aim_exp.evaluate.metrics import headline
from aim_exp.evaluate.responses import kept_responses
from aim_exp.evaluate.spec import TINY_TASKS
from aim_exp.population.embedded.items import KINDS
from aim_exp.types import Benchmark

TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.mark.parametrize("benchmark", TINY.benchmarks, ids=lambda b: b.name)
def test_an_oracle_scores_one(benchmark: Benchmark) -> None:
    evaluated = evaluate_task(Oracle(), TINY, benchmark)
    result = headline(benchmark, evaluated.scores)
    assert result.score.value == 1.0
    assert result.score.n == len(evaluated.items) >= 100


def test_there_are_six_built_in_tasks() -> None:
    assert len(TINY.benchmarks) == 6
    assert {path.stem for path in TINY_TASKS.glob("*.yaml")} == {
        *(b.task for b in TINY.benchmarks), "aim_tiny_continuation", "aim_tiny_text"
    }  # fmt: skip


def test_a_random_model_fails(tokenizer, tmp_path: Path) -> None:
    results = Harness.in_memory(random_model(), tokenizer, batch_size=64).evaluate(
        SHORT, SHORT.benchmarks, tmp_path / "responses"
    )
    scores = {b.name: headline(b, results[b.name].scores).score for b in SHORT.benchmarks}
    assert list(scores) == [f"tiny_{kind}" for kind in KINDS]
    assert all(score.n == 8 for score in scores.values())
    assert all(score.value < 0.2 for name, score in scores.items() if name != "tiny_mmlu")


def test_nothing_is_printed(tokenizer, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    Harness.in_memory(random_model(), tokenizer, batch_size=64).evaluate(
        SHORT, SHORT.benchmarks, tmp_path / "responses"
    )
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_the_global_generators_are_left_alone(tokenizer, tmp_path: Path) -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    sampled = replace(SHORT, generation={"do_sample": True, "temperature": 1.0})
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=64)
    first = harness.evaluate(sampled, [IFEVAL], tmp_path / "first")
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert before == after
    random.seed(7)
    torch.manual_seed(7)
    assert harness.evaluate(sampled, [IFEVAL], tmp_path / "second") == first


def test_progress_counts_items(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=16)
    total = sum(n_items(SHORT, benchmark) for benchmark in SHORT.benchmarks)
    assert total == 48
    for _ in range(2):  # the second time from the file
        steps: list[int] = []
        harness.evaluate(SHORT, SHORT.benchmarks, tmp_path / "responses", steps.append)
        assert sum(steps) == total


# Responses


def test_a_killed_evaluation_resumes_with_what_it_had(tokenizer, tmp_path: Path) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=16)
    done = 0

    def die(items: int) -> None:
        nonlocal done
        done += items
        if done >= 20:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        harness.evaluate(SHORT, [IFEVAL, MMLU, *SHORT.benchmarks[:2]], cut, die)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    (file,) = cut.iterdir()
    kept = kept_responses(cut)
    assert len(kept) >= 20
    file.write_text(file.read_text() + '["torn line', encoding="utf-8")
    torn = file.read_text()

    expected = harness.evaluate(SHORT, SHORT.benchmarks, whole)
    assert harness.evaluate(SHORT, SHORT.benchmarks, cut) == expected
    assert file.read_text() == torn, "what another process wrote stays as it is"
    assert len(list(cut.iterdir())) == 2
    assert kept_responses(cut) == kept_responses(whole)
    assert kept.items() <= kept_responses(whole).items()


def test_known_responses_need_no_model(tokenizer, tmp_path: Path) -> None:
    model = random_model()
    harness = Harness.in_memory(model, tokenizer, batch_size=16)
    first = harness.evaluate(SHORT, SHORT.benchmarks, tmp_path / "responses")
    (kept,) = (tmp_path / "responses").iterdir()
    size = kept.stat().st_size
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert harness.evaluate(SHORT, SHORT.benchmarks, tmp_path / "responses") == first
    assert kept.stat().st_size == size


# How prompts are made


def test_requests_are_built_once(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=16)
    (task,) = load_task(SHORT, IFEVAL).tasks["tasks"].values()
    first = harness.evaluate(SHORT, [IFEVAL], tmp_path / "first")
    requests = task.instances
    assert harness.evaluate(SHORT, [IFEVAL], tmp_path / "second") == first
    assert task.instances is requests
    harness.evaluate(replace(SHORT, limit=4), [IFEVAL], tmp_path / "third")
    assert len(task.instances) == 4


def test_few_shot_prompts_are_the_same_every_time(tokenizer, tmp_path: Path) -> None:
    suite = replace(write_tasks(tmp_path, own=task_file("own")), limit=5)
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=8)
    sizes = []
    for shots in (2, 2, 3, None):
        benchmark = Benchmark("own", "own", num_fewshot=shots)
        harness.evaluate(suite, [benchmark], tmp_path / "responses")
        sizes.append(len(kept_responses(tmp_path / "responses")))
    assert sizes == [5, 5, 10, 15]


def test_settings_change_the_requests(tokenizer, tmp_path: Path) -> None:
    tokenizer.chat_template = {"default": TEMPLATE, "plain": "{{ messages[0].content }}!"}
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=8)
    suites = [
        SHORT,
        replace(SHORT, generation={"max_gen_toks": 4}),
        replace(SHORT, system_instruction="Be brief."),
        replace(SHORT, chat_template=True),
        replace(SHORT, chat_template="plain"),
        replace(SHORT, chat_template=True, system_instruction="Be brief."),
    ]
    for number, suite in enumerate(suites, 1):
        harness.evaluate(suite, [IFEVAL], tmp_path / "responses")
        kept = kept_responses(tmp_path / "responses").values()
        assert sum(isinstance(answer, str) for answer in kept) == 8 * number


def test_a_missing_chat_template_is_an_error(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=8)
    with pytest.raises(EvaluationError, match=r"benchmarks\.chat_template=true: the tokenizer"):
        harness.evaluate(replace(SHORT, chat_template=True), [IFEVAL], tmp_path / "responses")


def test_long_prompts_are_told_of(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=8, max_length=30)
    warnings = harness.evaluate(SHORT, [IFEVAL], tmp_path / "responses")[
        "tiny_ifeval"
    ].scores.warnings
    assert len(warnings) == 1
    assert "30 tokens" in warnings[0]


def test_no_room_for_a_prompt_is_an_error(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(positions=24), tokenizer, batch_size=8)
    with pytest.raises(EvaluationError, match=r"benchmarks\.generation\.max_gen_toks=24"):
        harness.evaluate(SHORT, [IFEVAL], tmp_path / "responses")


def test_a_groups_row_is_its_score(tokenizer, tmp_path: Path) -> None:
    group = (
        "group: both\ntask: [one, two]\n"
        "aggregate_metric_list: [{metric: exact_match, weight_by_size: true}]\n"
    )
    suite = write_tasks(tmp_path, one=task_file("one"), two=task_file("two"), both=group)
    both = Benchmark("both", "both")
    result = headline(both, evaluate_task(Oracle(), replace(suite, limit=6), both).scores)
    assert (result.score.value, result.score.n, result.metric) == (1.0, 12, "exact_match,none")
    assert n_items(replace(suite, limit=6), both) == 12
    assert n_items(replace(suite, limit=0.1), both) == 30
