"""The protocols of the suites: shots, prompts, and how IFEval is scored."""

import ast
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import lm_eval.tasks
import pytest
from benchmark_rows import GSM8K, IFEVAL, MATH, write_rows
from suites import Scripted, suite_of, wrong

from aim_exp.evaluate.harness import evaluate_task
from aim_exp.evaluate.jackknife import jackknife_stderr
from aim_exp.evaluate.metrics import headline
from aim_exp.types import Benchmark, Suite

pytestmark = pytest.mark.usefixtures("nltk_data")


def prompts_of(suite: Suite, name: str) -> list[str]:
    benchmark = next(benchmark for benchmark in suite.benchmarks if benchmark.name == name)
    lm = Scripted(wrong)
    evaluate_task(lm, replace(suite, limit=1), benchmark)
    return lm.prompts


@pytest.mark.parametrize(
    ("suite", "name", "marker", "shots"),
    [
        ("paper", "humaneval", "def plus_0", 0),
        ("paper", "mbpp", "[BEGIN]", 3),
        ("paper", "mmlu", "Answer:", 0),
        ("paper", "math", "### Instruction:", 0),
        ("paper", "gsm8k", "### Instruction:", 0),
        ("standard", "humaneval", "def plus_0", 0),
        ("standard", "mbpp", "[BEGIN]", 3),
        ("standard", "mmlu", "Answer:", 5),
        ("standard", "math", "Problem:", 4),
        ("standard", "gsm8k", "Question:", 5),
    ],
)
def test_shots(suite: str, name: str, marker: str, shots: int, data_dir: Path) -> None:
    prompts = prompts_of(suite_of(suite, data_dir), name)
    assert prompts
    assert {prompt.count(marker) for prompt in prompts} == {shots + 1}


def test_the_papers_instruction_wrapper(data_dir: Path) -> None:
    paper = suite_of("paper", data_dir)
    for name, problem in (("gsm8k", GSM8K[0]["question"]), ("math", MATH[0]["problem"])):
        (prompt,) = prompts_of(paper, name)
        assert prompt == (
            "Below is an instruction that describes a task. Write a response that appropriately "
            f"completes the request.\n\n### Instruction:\n{problem}\n\n"
            "### Response: Let's think step by step."
        )


def test_the_examples_of_math_are_those_of_lm_eval(data_dir: Path) -> None:
    """Read, not imported: the module asserts a version of antlr that Hydra does not run with."""
    module = ast.parse((Path(lm_eval.tasks.__file__).parent / "minerva_math/utils.py").read_text())
    (samples,) = (
        ast.literal_eval(node.body[0].value)  # type: ignore[attr-defined]
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples"
    )
    (prompt,) = prompts_of(suite_of("standard", data_dir), "math")
    assert len(samples) == 4
    assert prompt == "".join(
        f"Problem:\n{sample['problem']}\n\nSolution: {sample['solution']}\n\n" for sample in samples
    ) + (f"Problem:\n{MATH[0]['problem']}\n\nSolution:")


def test_ifevals_mean_is_of_its_four_metrics(data_dir: Path) -> None:
    paper = suite_of("paper", data_dir)
    ifeval = next(benchmark for benchmark in paper.benchmarks if benchmark.name == "ifeval")

    def half(task: str, doc: dict[str, Any]) -> str:
        """One of the two instructions of the first prompt; the second once its stars are gone."""
        return {1000: "a river", 1001: '*{"a": 1}*', 1002: "Good morning to all of you"}[doc["key"]]

    scores = evaluate_task(Scripted(half), paper, ifeval).scores
    assert scores.metrics == pytest.approx(
        {
            "prompt_level_strict_acc,none": 0,
            "inst_level_strict_acc,none": 1 / 4,
            "prompt_level_loose_acc,none": 1 / 3,
            "inst_level_loose_acc,none": 2 / 4,
            "inferred_mean_acc,none": (0 + 1 / 4 + 1 / 3 + 2 / 4) / 4,
        }
    )
    stderr = headline(ifeval, scores).score.stderr
    assert stderr is not None
    assert 0 < stderr < 0.5


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    items = [0, 1, 1, 0, 1, 0, 0, 0, 1, 0]
    assert jackknife_stderr(fmean, items) == pytest.approx(stdev(items) / len(items) ** 0.5)
    many = items * 60
    assert jackknife_stderr(fmean, many) == pytest.approx(stdev(many) / len(many) ** 0.5, rel=0.3)
    assert jackknife_stderr(fmean, [1]) is None


def test_ifeval_scores_the_same_every_time(tmp_path: Path) -> None:
    """Unless it is seeded, langdetect takes these two words for Albanian or for French."""
    french = {key: value for key, value in IFEVAL[2].items() if key != "gold"}
    write_rows(tmp_path / "ifeval" / "train.jsonl", [french] * 60)
    suite = suite_of("standard", tmp_path)
    answers = Scripted(lambda *_: "Bonjour hello")
    scores = evaluate_task(answers, suite, Benchmark("ifeval", "ifeval")).scores
    assert scores.metrics["prompt_level_strict_acc,none"] in (0, 1)
