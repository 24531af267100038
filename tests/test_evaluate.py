"""Scoring through lm-eval: the built-in tasks, what is kept, resuming, and bad suites."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from aim_exp.embedded.items import BENCHMARKS
from aim_exp.embedded.tokenizer import train_tokenizer
from aim_exp.errors import EvaluationError
from aim_exp.evaluate.check import check_suite
from aim_exp.evaluate.greedy import StopAtText, decode
from aim_exp.evaluate.harness import Harness, evaluate_task
from aim_exp.evaluate.hf import LiveHFLM
from aim_exp.evaluate.loading import load_task, n_items
from aim_exp.evaluate.metrics import Scores, headline
from aim_exp.evaluate.results import read_result, read_scores, write_result
from aim_exp.evaluate.spec import TINY_TASKS, task_spec
from aim_exp.types import Benchmark, Suite

TINY = Suite(
    name="tiny",
    benchmarks=tuple(Benchmark(name, f"aim_tiny_{name}") for name in BENCHMARKS),
    task_folder=TINY_TASKS,
    allow_code_execution=True,
)
SHORT = replace(TINY, limit=8)
MMLU, IFEVAL = (next(b for b in TINY.benchmarks if b.name == name) for name in ("mmlu", "ifeval"))
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer().save(str(path))
    return path


@pytest.fixture
def tokenizer(tokenizer_file: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def random_model(seed: int = 0, positions: int = 256) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=768,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=positions,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def sliding_model() -> Gemma2ForCausalLM:
    """Every second layer sees few tokens: its cache is another one."""
    config = Gemma2Config(
        vocab_size=768,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=16,
        sliding_window=8,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Gemma2ForCausalLM(config).eval()


class Oracle(LM):
    """Returns each item's own answer."""

    def generate_until(self, requests):
        return [request.doc["answer"] for request in requests]

    def loglikelihood(self, requests):
        return [
            (0.0 if request.args[1] == request.doc["choices"][request.doc["label"]] else -1.0, True)
            for request in requests
        ]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


def write_tasks(folder: Path, **files: str) -> Suite:
    """A suite of own task files, over the built-in items."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "items.py").write_text(
        "from datasets import Dataset\n"
        "from aim_exp.embedded.items import test_items\n"
        "def load(benchmark, **_):\n"
        "    return {'test': Dataset.from_list(test_items(benchmark))}\n"
    )
    return Suite(name="own", benchmarks=(), task_folder=folder)


def task_file(name: str, *more: str) -> str:
    return "\n".join(
        [
            f"task: {name}",
            "custom_dataset: !function items.load",
            "dataset_kwargs: {benchmark: gsm8k}",
            "test_split: test",
            "fewshot_split: test",
            "output_type: generate_until",
            "doc_to_text: prompt",
            "doc_to_target: answer",
            'target_delimiter: ""',
            'generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}',
            "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]",
            *more,
        ]
    )


# The built-in tasks


@pytest.mark.parametrize("benchmark", TINY.benchmarks, ids=lambda b: b.name)
def test_an_oracle_scores_one(benchmark: Benchmark) -> None:
    evaluated = evaluate_task(Oracle(), TINY, benchmark)
    result = headline(benchmark, evaluated.scores)
    assert result.score.value == 1.0
    assert result.score.n == len(evaluated.samples) >= 100


def test_there_are_six_built_in_tasks() -> None:
    assert len(TINY.benchmarks) == 6
    assert {path.stem for path in TINY_TASKS.glob("*.yaml")} == {b.task for b in TINY.benchmarks}


def test_a_random_model_fails(tokenizer, tmp_path: Path) -> None:
    results = Harness.in_memory(random_model(), tokenizer, batch_size=64).evaluate(
        SHORT, SHORT.benchmarks, tmp_path / "responses"
    )
    scores = {b.name: headline(b, results[b.name].scores).score for b in SHORT.benchmarks}
    assert list(scores) == list(BENCHMARKS)
    assert all(score.n == 8 for score in scores.values())
    assert all(score.value < 0.2 for name, score in scores.items() if name != "mmlu")


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


# The live model


def test_new_weights_give_new_responses(tokenizer, tmp_path: Path) -> None:
    live, other = random_model(0), random_model(1)
    harness = Harness.in_memory(live, tokenizer, batch_size=16)
    first = harness.evaluate(SHORT, SHORT.benchmarks, tmp_path / "first")
    with torch.no_grad():
        for parameter, value in zip(live.parameters(), other.parameters(), strict=True):
            parameter.copy_(value)
    second = harness.evaluate(SHORT, SHORT.benchmarks, tmp_path / "second")
    fresh = Harness.in_memory(other, tokenizer, batch_size=16).evaluate(
        SHORT, SHORT.benchmarks, tmp_path / "fresh"
    )
    assert second == fresh
    assert second["ifeval"].samples != first["ifeval"].samples


def test_batches_answer_as_single_requests_do(tokenizer, tmp_path: Path) -> None:
    single, batched = (
        Harness.in_memory(random_model(), tokenizer, batch_size=size).evaluate(
            SHORT, SHORT.benchmarks, tmp_path / str(size)
        )
        for size in (1, 64)
    )
    for name in BENCHMARKS:
        for one, many in zip(single[name].samples, batched[name].samples, strict=True):
            assert one["metrics"] == many["metrics"]
            if name != "mmlu":
                assert one["responses"] == many["responses"]
            else:
                likelihoods = [
                    [response[0][0] for response in sample["responses"]] for sample in (one, many)
                ]
                assert likelihoods[0] == pytest.approx(likelihoods[1], rel=1e-4)


@pytest.mark.parametrize("generation", [{}, {"repetition_penalty": 1.2}], ids=["plain", "penalty"])
@pytest.mark.parametrize("make", [random_model, sliding_model])
def test_responses_are_those_of_lm_evals_own_model(make, generation, tokenizer, tmp_path) -> None:
    """Rows that leave the batch, logits that are not made: nothing changes in any answer."""
    model, suite = make(), replace(SHORT, generation=generation)
    found = {}
    for name, harness in (
        ("ours", Harness.in_memory(model, tokenizer, batch_size=16)),
        ("theirs", Harness(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16))),
    ):
        harness.evaluate(suite, suite.benchmarks, tmp_path / name)
        lines = (tmp_path / name).read_text().splitlines()
        found[name] = dict(map(json.loads, lines))
    assert len(found["ours"]) == 5 * 8 + 8 * 4
    assert set(found["ours"]) == set(found["theirs"])
    for key, response in found["ours"].items():
        is_text = isinstance(response, str)
        assert found["theirs"][key] == (response if is_text else pytest.approx(response, rel=1e-5))


def test_rows_leave_the_batch_when_they_end(tokenizer) -> None:
    """The model sees fewer rows, and each answer is what the row gives alone."""
    model, prompts = random_model(), torch.randint(5, 700, (8, 6))
    sizes: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True
    )

    def answers(rows: torch.Tensor) -> list[list[int]]:
        ends = StopAtText(tokenizer, ["a", "e", "</s>"], rows.shape[1])
        found = model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            max_length=rows.shape[1] + 24,
            do_sample=False,
            stopping_criteria=[ends],
            pad_token_id=0,
            custom_generate=decode,
        )
        return [row[rows.shape[1] :] for row in found.tolist()]

    together = answers(prompts)
    assert sizes[0] == 8
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 8
    for row, found in zip(prompts, together, strict=True):
        (alone,) = answers(row[None])
        assert found == alone + [0] * (len(found) - len(alone))


@pytest.mark.parametrize("make", [random_model, sliding_model])
def test_a_shared_context_is_computed_once(make, tokenizer) -> None:
    """Two contexts of different lengths, six continuations: 2 rows, then 6."""
    model = make()
    ours, theirs = (
        kind(pretrained=model, tokenizer=tokenizer, batch_size=16) for kind in (LiveHFLM, HFLM)
    )
    contexts = {tuple(range(40, 43)): [[5, 6, 7], [8]]}
    contexts[tuple(range(5, 25))] = [[9], [30, 31], [32, 33, 34, 35, 36], [37, 38]]
    requests = [(None, list(c), n) for c, further in contexts.items() for n in further]
    expected = theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    greedy = model(torch.tensor([range(40, 43)])).logits[0, -1].argmax().item()
    requests.append((None, list(range(40, 43)), [greedy]))

    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    *found, best = ours._loglikelihood_tokens(requests)
    assert seen == [(2, 20), (7, 4)]
    assert best[1]
    assert len(found) == 6
    for one, other in zip(found, expected, strict=True):
        assert one == (pytest.approx(other[0], rel=1e-5), other[1])


def test_requests_that_must_be_cut_are_lm_evals(tokenizer) -> None:
    lms = [
        kind(pretrained=random_model(), tokenizer=tokenizer, batch_size=16, max_length=12)
        for kind in (LiveHFLM, HFLM)
    ]
    requests = [(None, list(range(5, 25)), [30]), (None, [5, 6], [7, 8])]
    ours, theirs = (lm._loglikelihood_tokens(requests, disable_tqdm=True) for lm in lms)
    assert ours == theirs


def test_only_a_very_small_model_takes_larger_batches_by_itself(tokenizer) -> None:
    for positions, expected in ((256, (1 << 28) // (2 * 2 * 48 * 256 * 4)), (1 << 16, 64)):
        model = random_model(positions=positions)
        assert LiveHFLM(pretrained=model, tokenizer=tokenizer, batch_size=None).batch_size == (
            expected
        )


def test_requests_are_built_once(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=16)
    (task,) = load_task(SHORT, IFEVAL).tasks["tasks"].values()
    first = harness.evaluate(SHORT, [IFEVAL], tmp_path / "first")
    requests = task.instances
    assert harness.evaluate(SHORT, [IFEVAL], tmp_path / "second") == first
    assert task.instances is requests
    harness.evaluate(replace(SHORT, limit=4), [IFEVAL], tmp_path / "third")
    assert len(task.instances) == 4


def test_long_prompts_are_told_of(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=8, max_length=30)
    warnings = harness.evaluate(SHORT, [IFEVAL], tmp_path / "responses")["ifeval"].scores.warnings
    assert len(warnings) == 1
    assert "30 tokens" in warnings[0]


def test_no_room_for_a_prompt_is_an_error(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(positions=24), tokenizer, batch_size=8)
    with pytest.raises(EvaluationError, match=r"benchmarks\.generation\.max_gen_toks=24"):
        harness.evaluate(SHORT, [IFEVAL], tmp_path / "responses")


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
    kept = cut.read_text().splitlines()
    assert len(kept) >= 20
    cut.write_text(cut.read_text() + '["torn line', encoding="utf-8")

    expected = harness.evaluate(SHORT, SHORT.benchmarks, whole)
    assert harness.evaluate(SHORT, SHORT.benchmarks, cut) == expected
    lines = cut.read_text().splitlines()
    assert lines[: len(kept)] == kept
    assert sorted(lines) == sorted(whole.read_text().splitlines())


def test_known_responses_need_no_model(tokenizer, tmp_path: Path) -> None:
    model = random_model()
    harness = Harness.in_memory(model, tokenizer, batch_size=16)
    first = harness.evaluate(SHORT, SHORT.benchmarks, tmp_path / "responses")
    size = (tmp_path / "responses").stat().st_size
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert harness.evaluate(SHORT, SHORT.benchmarks, tmp_path / "responses") == first
    assert (tmp_path / "responses").stat().st_size == size


# How prompts are made


def test_few_shot_prompts_are_the_same_every_time(tokenizer, tmp_path: Path) -> None:
    suite = replace(write_tasks(tmp_path, own=task_file("own")), limit=5)
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=8)
    sizes = []
    for shots in (2, 2, 3, None):
        benchmark = Benchmark("own", "own", num_fewshot=shots)
        harness.evaluate(suite, [benchmark], tmp_path / "responses")
        sizes.append(len((tmp_path / "responses").read_text().splitlines()))
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
        assert len((tmp_path / "responses").read_text().splitlines()) == 8 * number


def test_a_missing_chat_template_is_an_error(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=8)
    with pytest.raises(EvaluationError, match=r"benchmarks\.chat_template=true: the tokenizer"):
        harness.evaluate(replace(SHORT, chat_template=True), [IFEVAL], tmp_path / "responses")


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


# The headline

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
    evaluated = harness.evaluate(SHORT, [MMLU], tmp_path / "responses")["mmlu"]
    write_result(tmp_path, evaluated)
    assert read_scores(tmp_path) == evaluated.scores
    assert read_result(tmp_path, MMLU) == headline(MMLU, evaluated.scores)
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").open()]
    assert samples == evaluated.samples
    assert [sample["doc_id"] for sample in samples] == list(range(8))
    mean = sum(sample["metrics"]["acc"] for sample in samples) / 8
    assert mean == evaluated.scores.metrics["acc,none"]


def test_an_unreadable_result_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"scores\.json: not readable"):
        read_result(tmp_path, MMLU)


# Bad suites


def suite_of(*benchmarks: Benchmark, **settings) -> Suite:
    return Suite(name="lm_eval", benchmarks=benchmarks, **settings)


def test_the_built_in_suite_has_no_problem() -> None:
    assert check_suite(TINY) == []


@pytest.mark.parametrize(
    ("suite", "parts"),
    [
        (suite_of(Benchmark("gsm8", "gsm8")), ["task=gsm8", "gsm8k"]),
        (suite_of(Benchmark("arc", "ai2_arc")), ["tag", "arc_easy"]),
        (suite_of(Benchmark("code", "humaneval")), ["benchmarks.allow_code_execution"]),
        (replace(TINY, allow_code_execution=False), ["benchmarks.allow_code_execution"]),
        (suite_of(Benchmark("arc", "arc_easy"), generation={"max_new_tokens": 4}), ["max_gen_"]),
        (
            suite_of(Benchmark("code", "humaneval", num_fewshot=3), allow_code_execution=True),
            ["num_fewshot=3", "fixes it at 0"],
        ),
    ],
)
def test_a_bad_suite_is_told_before_anything_is_loaded(suite: Suite, parts: list[str]) -> None:
    problems = check_suite(suite)
    assert problems
    assert "\n" not in problems[0]
    assert all(part in problems[0] for part in parts)


def test_good_suites_pass_the_check() -> None:
    benchmarks = [Benchmark(task, task) for task in ("mmlu", "gsm8k", "humaneval", "mbpp")]
    assert check_suite(suite_of(*benchmarks, allow_code_execution=True)) == []


def test_missing_packages_are_told_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    suite = write_tasks(tmp_path, own=task_file("own", "process_results: !function needs.score"))
    (tmp_path / "needs.py").write_text("import no_such_package\n")
    (problem,) = check_suite(replace(suite, benchmarks=(Benchmark("own", "own"),)))
    assert "own" in problem
    assert "no_such_package" in problem


def test_missing_nltk_data_are_told_and_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setattr("nltk.download", lambda *_: pytest.fail("tried to download"))
    (problem,) = check_suite(suite_of(Benchmark("ifeval", "ifeval")))
    assert "punkt_tab" in problem
    assert "NLTK_DATA" in problem


def test_a_task_that_cannot_be_loaded_is_an_error(
    tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_tasks(tmp_path, own=task_file("own", "process_docs: !function items.absent"))
    with pytest.raises(EvaluationError, match="benchmark own: the task own cannot be loaded"):
        evaluate_task(Oracle(), suite, Benchmark("own", "own"))


# Keys


def test_the_spec_names_what_changes_scores_and_no_more(tmp_path: Path) -> None:
    base = task_spec(TINY, MMLU)
    assert task_spec(TINY, MMLU) == base
    for suite, benchmark in [
        (replace(TINY, limit=5), MMLU),
        (replace(TINY, chat_template=True), MMLU),
        (replace(TINY, system_instruction="x"), MMLU),
        (replace(TINY, fewshot_as_multiturn=True), MMLU),
        (replace(TINY, generation={"max_gen_toks": 4}), MMLU),
        (replace(TINY, task_folder=tmp_path), MMLU),
        (replace(TINY, task_folder=None), MMLU),
        (TINY, replace(MMLU, num_fewshot=3)),
        (TINY, IFEVAL),
    ]:
        assert task_spec(suite, benchmark) != base
    assert task_spec(TINY, replace(MMLU, metric="acc,none", reference_point=0.1)) == base
    assert task_spec(replace(TINY, name="other"), MMLU) == base


def test_specs_and_results_need_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from aim_exp.evaluate import metrics, results, spec\n"
        "from aim_exp.types import Benchmark, Suite\n"
        "suite = Suite('tiny', (), task_folder=spec.TINY_TASKS)\n"
        "spec.task_spec(suite, Benchmark('mmlu', 'aim_tiny_mmlu'))\n"
        "assert not {'torch', 'lm_eval', 'datasets', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
