"""Benchmarks from local files: what is read, and what is missing or torn."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
from benchmark_rows import GSM8K, IFEVAL, MATH, SUBJECTS, write_rows
from suites import SUITES, Scripted, gold, suite_of

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.check import check_suite
from aim_exp.evaluate.harness import evaluate_task
from aim_exp.evaluate.loading import n_items
from aim_exp.evaluate.metrics import headline
from aim_exp.types import Benchmark, Suite

pytestmark = pytest.mark.usefixtures("nltk_data")


@pytest.mark.slow
def test_a_part_of_mmlu_is_scored_and_said(data_dir: Path) -> None:
    paper = suite_of("paper", data_dir)
    mmlu_ = next(benchmark for benchmark in paper.benchmarks if benchmark.name == "mmlu")
    evaluated = evaluate_task(Scripted(gold), paper, mmlu_)
    samples = map(json.loads, evaluated.items)
    assert {sample["task"] for sample in samples} == {f"mmlu_{s}" for s in SUBJECTS}
    assert evaluated.scores.warnings == [
        "benchmark mmlu: scored on 3 of its 57 tasks; benchmarks.data_dir has no folder for "
        "mmlu_abstract_algebra, mmlu_college_biology, mmlu_college_chemistry, ..."
    ]


@pytest.mark.parametrize(
    ("lost", "benchmark"),
    [
        ("gsm8k/train.jsonl", "gsm8k"),
        ("openai_humaneval/test.jsonl", "humaneval"),
        ("mmlu/astronomy/dev.jsonl", "mmlu"),
        ("ifeval/train.jsonl", "ifeval"),
    ],
)
def test_a_missing_file_is_named(data_dir: Path, tmp_path: Path, lost: str, benchmark: str) -> None:
    shutil.copytree(data_dir, tmp_path / "data")
    (tmp_path / "data" / lost).unlink()
    (problem,) = check_suite(suite_of("standard", tmp_path / "data"))
    assert problem == (
        f"benchmarks.data_dir={tmp_path}/data: {benchmark} needs {tmp_path}/data/{lost} "
        "(or .parquet); put the hub's rows there"
    )


def test_an_empty_folder_lacks_a_file_for_each(tmp_path: Path) -> None:
    problems = check_suite(suite_of("paper", tmp_path))
    assert len(problems) == 6
    assert f"{tmp_path}/mmlu/" in problems[2]


def test_parquet_is_read_like_json_lines(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(GSM8K), tmp_path / "gsm8k/test.parquet")
    gsm8k = Benchmark("gsm8k", "aim_paper_gsm8k")
    suites = [replace(suite_of("paper", at), benchmarks=(gsm8k,)) for at in (data_dir, tmp_path)]
    assert check_suite(suites[1]) == []
    lines, parquet = (evaluate_task(Scripted(gold), suite, gsm8k) for suite in suites)
    assert lines == parquet


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "math" / "test.jsonl", MATH)
    with (tmp_path / "math" / "test.jsonl").open("a") as file:
        file.write('{"problem": "wh')
    with pytest.raises(EvaluationError, match=r"math/test\.jsonl: line 4 is no JSON"):
        evaluate_task(
            Scripted(gold), suite_of("standard", tmp_path), Benchmark("math", "aim_standard_math")
        )


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("column", ["prompt", "kwargs", "instruction_id_list"])
def test_a_missing_column_is_named_before_a_model_answers(
    name: str, column: str, tmp_path: Path
) -> None:
    rows = [{key: value for key, value in row.items() if key != column} for row in IFEVAL]
    write_rows(tmp_path / "ifeval" / "train.jsonl", rows)
    suite = suite_of(name, tmp_path)
    ifeval = next(benchmark for benchmark in suite.benchmarks if benchmark.name == "ifeval")
    with pytest.raises(EvaluationError) as refused:
        n_items(suite, ifeval)
    assert f"its items lack the column '{column}'; check the files in" in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("file", "benchmark"), [("gsm8k/test.jsonl", "gsm8k"), ("mmlu/astronomy/test.jsonl", "mmlu")]
)
def test_an_empty_file_is_refused(
    file: str, benchmark: str, data_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(data_dir, tmp_path / "data")
    (tmp_path / "data" / file).write_text("")
    suite = suite_of("paper", tmp_path / "data")
    asked = next(each for each in suite.benchmarks if each.name == benchmark)
    with pytest.raises(EvaluationError, match=f"{file}: holds no rows"):
        n_items(suite, asked)


def test_other_tasks_of_lm_eval_read_local_files(tmp_path: Path) -> None:
    rows = [
        {"id": str(n), "question": "Which?", "answerKey": "B",
         "choices": {"text": ["this", "that"], "label": ["A", "B"]}}
        for n in range(2)
    ]  # fmt: skip
    for split in ("train", "validation", "test"):
        write_rows(tmp_path / "ai2_arc" / "ARC-Easy" / f"{split}.jsonl", rows)
    arc = Benchmark("arc", "arc_easy")
    suite = Suite("lm_eval", (arc,), data_dir=tmp_path)
    assert check_suite(suite) == []

    class Second(Scripted):
        def loglikelihood(self, requests):
            return [(float(request.args[1] == " that"), True) for request in requests]

    assert headline(arc, evaluate_task(Second(gold), suite, arc).scores).score.value == 1.0
