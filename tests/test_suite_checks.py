"""Suites before they are asked: what is refused, and what a benchmark's key holds."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_suite import IFEVAL, MMLU, TINY, Oracle, task_file, write_tasks

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.check import check_suite
from aim_exp.evaluate.harness import evaluate_task
from aim_exp.evaluate.spec import task_spec
from aim_exp.types import Benchmark, Suite


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
        "spec.task_spec(suite, Benchmark('tiny_mmlu', 'aim_tiny_mmlu'))\n"
        "assert not {'torch', 'lm_eval', 'datasets', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
