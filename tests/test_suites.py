"""The suites `paper` and `standard` on local data: gold answers, wrong ones, what is missing."""

import ast
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import lm_eval.tasks
import nltk
import pyarrow.parquet
import pytest
from conftest import Cli
from hydra import compose, initialize_config_dir
from lm_eval.api.model import LM
from transformers import AutoModelForCausalLM, AutoTokenizer

from aim_exp.app import CONFIG_FOLDER
from aim_exp.build import _suite
from aim_exp.errors import EvaluationError
from aim_exp.evaluate.check import check_suite
from aim_exp.evaluate.harness import Harness, evaluate_task
from aim_exp.evaluate.jackknife import jackknife_stderr
from aim_exp.evaluate.loading import n_items
from aim_exp.evaluate.metrics import headline
from aim_exp.evaluate.spec import task_spec
from aim_exp.evaluate.tasks.paper.answers import final_answer, same_answer
from aim_exp.keys import canonical_json
from aim_exp.types import Benchmark, Suite

NAMES = {"humaneval", "mbpp", "mmlu", "math", "gsm8k", "ifeval"}
SUBJECTS = ("anatomy", "astronomy", "philosophy")
SUITES = ("paper", "standard")

HUMANEVAL = [
    {
        "task_id": f"HumanEval/{n}",
        "prompt": f'def plus_{n}(x: int) -> int:\n    """Add {n}."""\n',
        "canonical_solution": f"    return x + {n}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
        "entry_point": f"plus_{n}",
    }
    for n in range(3)
]
MBPP = [
    {
        "task_id": 11 + n,
        "text": f"Write a function to multiply by {n}.",
        "code": f"def times(x):\n    return {n} * x",
        "test_list": [f"assert times({x}) == {n * x}" for x in (1, 2, 3)],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    for n in range(2, 5)
]
GSM8K = [
    {
        "question": f"Ann has {n} boxes of 500 pens. How many pens is that?",
        "answer": f"{n} * 500 = <<{n}*500={n * 500}>>{n * 500}\n#### {n * 500:,}",
    }
    for n in range(1, 8)
]
MATH = [
    {
        "problem": f"What is $\\frac{{{n}}}{{7}} + 1$?",
        "level": "Level 1",
        "type": "Prealgebra",
        "solution": f"It is $\\frac{{{n}}}{{7}} + 1 = \\boxed{{\\frac{{{n + 7}}}{{7}}}}$.",
    }
    for n in range(1, 4)
]
IFEVAL = [
    {
        "key": 1000,
        "prompt": "Write without commas, all in lower case.",
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
        "kwargs": [{}, {"keywords": ["river", "stone"]}],
        "gold": "a river and a stone",
    },
    {
        "key": 1001,
        "prompt": "Answer with JSON.",
        "instruction_id_list": ["detectable_format:json_format"],
        "kwargs": [{}],
        "gold": '{"a": 1}',
    },
    {
        "key": 1002,
        "prompt": "Write in French.",
        "instruction_id_list": ["language:response_language"],
        "kwargs": [{"language": "fr"}],
        "gold": "Bonjour tout le monde, je suis content de vous voir aujourd'hui.",
    },
]


def mmlu(subject: str) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Which letter is number {n} ({subject})?",
            "subject": subject,
            "choices": ["a", "b", "c", "d"],
            "answer": n % 4,
        }
        for n in range(6)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six datasets, a few rows each; three of MMLU's subjects."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "openai_humaneval" / "test.jsonl", HUMANEVAL)
    write_rows(folder / "mbpp" / "test.jsonl", MBPP)
    for split in ("train", "test"):
        write_rows(folder / "gsm8k" / f"{split}.jsonl", GSM8K)
    write_rows(folder / "math" / "test.jsonl", MATH)
    for subject in SUBJECTS:
        for split in ("dev", "test"):
            write_rows(folder / "mmlu" / subject / f"{split}.jsonl", mmlu(subject))
    rows = [{key: value for key, value in row.items() if key != "gold"} for row in IFEVAL]
    write_rows(folder / "ifeval" / "train.jsonl", rows)
    return folder


@pytest.fixture(scope="session")
def nltk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lm-eval looks for; none of the instructions asked here reads it."""
    folder = tmp_path_factory.mktemp("nltk")
    (folder / "tokenizers" / "punkt_tab").mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def nltk_data(nltk_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(nltk_folder)])


@pytest.fixture(params=SUITES)
def suite(request: pytest.FixtureRequest, data_dir: Path) -> Suite:
    return suite_of(request.param, data_dir)


def suite_of(name: str, data_dir: Path | None, *overrides: str) -> Suite:
    """The suite as the configuration makes it."""
    where = f"benchmarks.data_dir={data_dir or 'null'}"
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", [f"benchmarks={name}", where, *overrides])
    problems: list[str] = []
    suite = _suite(config.benchmarks, name, problems)
    assert suite is not None, problems
    return replace(suite, allow_code_execution=True)


class Scripted(LM):
    """Answers each item with what `answer` says, and prefers the choice that it names."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], str]) -> None:
        super().__init__()
        self._answer = answer
        self.prompts: list[str] = []

    def generate_until(self, requests):
        self.prompts += [request.args[0] for request in requests]
        return [self._answer(request.task_name, request.doc) for request in requests]

    def loglikelihood(self, requests):
        self.prompts += [request.args[0] for request in requests]
        return [
            (0.0 if request.args[1].strip() == self._answer("mmlu", request.doc) else -1.0, True)
            for request in requests
        ]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


def gold(task: str, doc: dict[str, Any]) -> str:
    answers: dict[str, Callable[[], str]] = {
        "humaneval": lambda: doc["canonical_solution"],
        "mbpp": lambda: doc["code"],
        "mmlu": lambda: "ABCD"[doc["answer"]],
        "gsm8k": lambda: doc["answer"],
        "aim_paper_gsm8k": lambda: f"500 each. The answer is: {doc['answer']} pens.",
        "aim_paper_math": lambda: f"So $\\boxed{{{doc['answer']}}}$",
        "aim_standard_math": lambda: doc["solution"],
    }
    if task.endswith("ifeval"):
        return next(row["gold"] for row in IFEVAL if row["key"] == doc["key"])
    return answers[task]()


def wrong(task: str, doc: dict[str, Any]) -> str:
    if task == "mmlu":
        return "BCDA"[doc["answer"]]
    return "" if task.endswith("ifeval") else "    The answer is 17."


def test_each_suite_has_the_papers_six_benchmarks(suite: Suite) -> None:
    assert {benchmark.name for benchmark in suite.benchmarks} == NAMES
    assert check_suite(suite) == []


def test_gold_answers_score_one(suite: Suite) -> None:
    for benchmark in suite.benchmarks:
        result = headline(benchmark, evaluate_task(Scripted(gold), suite, benchmark).scores)
        assert result.score.value == 1.0, benchmark
        assert result.metric == benchmark.metric
        assert result.score.n == {"mmlu": 18, "gsm8k": 7}.get(benchmark.name, 3)


def test_wrong_answers_score_nothing(suite: Suite) -> None:
    for benchmark in suite.benchmarks:
        scores = evaluate_task(Scripted(wrong), suite, benchmark).scores
        assert headline(benchmark, scores).score.value == 0.0, benchmark


# The protocols


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
    indirect=["suite"],
)
def test_shots(suite: Suite, name: str, marker: str, shots: int) -> None:
    prompts = prompts_of(suite, name)
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


# The authors' answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"first \boxed{4}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{4} and the answer is 5", "4"),
        (r"it is $\boxed 7$ then", "7"),
        (r"cut off: \boxed{\frac{1}{2", r"\frac{1}{2"),
        ("The answer is 5.", "5"),
        ("The answer is: 1,234\nQ 9", "1,234"),
        ("the answer is 3. No, the answer is -4.", "-4"),
        ("The answer is $x^2 + 1$.", "$x^2 + 1$"),
        ("He has 3 and then 1,200 left", "1,200"),
        ("It is 3, or 4, in the end.", "4"),
        ("costs $2.50.", "2.50"),
        ("goes down to -.5 at last", "-.5"),
        ("no idea", ""),
        ("", ""),
    ],
)
def test_the_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{1}{2}", "1/2"),
        (r"\frac{1}{2}", "0.5"),
        (r"\frac12", r"\dfrac{1}{2}"),
        ("1000", "1,000"),
        ("70,000", "70000"),
        ("72", "72 apples"),
        ("5", "5 dollars"),
        ("18", "$18"),
        ("18", r"\$18"),
        ("10", r"10\%"),
        ("5", r"5 \text{ cm}"),
        ("90", r"90^\circ"),
        ("5", "x = 5"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        ("(x+1)^2", "x^2 + 2x + 1"),
        ("(1,2)", "(1, 2)"),
        ("[2,5)", "[2, 5)"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{(C)}", "C"),
    ],
)
def test_equal_answers(gold: str, answer: str) -> None:
    assert same_answer(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("3", "4"),
        ("5", "-5"),
        ("2", "x^2 + 2"),
        ("3", r"3\pi"),
        ("(1,2)", "(2,1)"),
        ("[2,5)", "(2,5)"),
        (r"\frac{1}{3}", "0.33"),
        ("10", "10 or 12"),
        ("even", "odd"),
        ("5", ""),
        ("5", r"\frac{1}{"),
    ],
)
def test_unequal_answers(gold: str, answer: str) -> None:
    assert not same_answer(gold, answer)


# Local data


def test_a_part_of_mmlu_is_scored_and_said(data_dir: Path) -> None:
    paper = suite_of("paper", data_dir)
    mmlu_ = next(benchmark for benchmark in paper.benchmarks if benchmark.name == "mmlu")
    evaluated = evaluate_task(Scripted(gold), paper, mmlu_)
    assert {sample["task"] for sample in evaluated.samples} == {f"mmlu_{s}" for s in SUBJECTS}
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


# Keys


def test_the_suites_share_no_key(data_dir: Path) -> None:
    specs = [
        canonical_json(task_spec(suite, benchmark))
        for suite in (suite_of(name, data_dir) for name in SUITES)
        for benchmark in suite.benchmarks
    ]
    assert len(set(specs)) == 12


def test_data_are_part_of_the_key(data_dir: Path, tmp_path: Path) -> None:
    gsm8k = Benchmark("gsm8k", "gsm8k")
    copies = [Path(shutil.copytree(data_dir, tmp_path / name)) for name in ("same", "other")]
    write_rows(copies[1] / "gsm8k" / "test.jsonl", GSM8K[:5])
    here, same, other, hub = (
        task_spec(suite_of("paper", folder), gsm8k) for folder in (data_dir, *copies, None)
    )
    assert here == same
    assert here["items"] != other["items"]
    assert hub["items"] is None


# With a model, and from the command line


def test_a_random_model_goes_through_both_suites(
    suite: Suite, family: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    model = AutoModelForCausalLM.from_pretrained(family / "base", dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(family / "base")
    harness = Harness.in_memory(model, tokenizer, batch_size=16)
    capfd.readouterr()
    short = replace(suite, limit=2, generation={"max_gen_toks": 8})
    results = harness.evaluate(short, short.benchmarks, tmp_path / "responses")
    assert set(results) == NAMES
    for benchmark in suite.benchmarks:
        result = headline(benchmark, results[benchmark.name].scores)
        assert result.score.n == (6 if benchmark.name == "mmlu" else 2)
        assert result.score.value == 0 or benchmark.name in ("mmlu", "ifeval")
    assert capfd.readouterr() == ("", "")


def test_a_sweep_on_the_papers_suite_has_a_report(
    cli: Cli, data_dir: Path, nltk_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics that are tables per item, as IFEval's are, included."""
    monkeypatch.setenv("NLTK_DATA", str(nltk_folder))
    done = cli(
        "-m", "benchmarks=paper", f"benchmarks.data_dir={data_dir}", "omega=null,0.2,0.4",
        "benchmarks.allow_code_execution=true", "benchmarks.generation={max_gen_toks: 8}",
        "benchmarks.limit=2", "tracker=none", "hydra.sweep.dir=s",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "s").glob("*/result.json"))) == 3
    report = (tmp_path / "s" / "report.md").read_text()
    assert "every second item" in report
    assert (tmp_path / "s" / "report.html").is_file()


def test_running_code_is_opt_in(
    data_dir: Path, nltk_folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NLTK_DATA", str(nltk_folder))
    refused = cli(
        "-m", "benchmarks=paper,standard", f"benchmarks.data_dir={data_dir}", "tracker=none"
    )
    print(refused.stdout, refused.stderr)
    assert refused.returncode == 1
    for name in ("humaneval", "mbpp"):
        reason = f"benchmarks.allow_code_execution=false: {name} runs code"
        assert refused.stderr.count(reason) == 2


@pytest.mark.parametrize(
    ("package", "benchmarks"), [("math_verify", ["math", "gsm8k"]), ("langdetect", ["ifeval"])]
)
def test_a_missing_package_is_named(
    package: str, benchmarks: list[str], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in list(sys.modules):
        if module.startswith("lm_eval.tasks.ifeval") or module.endswith(("/answers", "/ifeval")):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    problems = check_suite(suite_of("paper", data_dir))
    assert [problem.split(": ")[1] for problem in problems] == benchmarks
    for problem in problems:
        assert package in problem
        assert "pip install 'aim-exp[benchmarks]'" in problem


def test_minerva_math_names_the_task_to_take_instead() -> None:
    (problem,) = check_suite(Suite("lm_eval", (Benchmark("math", "minerva_math"),)))
    assert "aim_standard_math" in problem


def test_a_data_dir_that_is_not_there_is_refused() -> None:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", ["benchmarks=paper", "benchmarks.data_dir=nowhere"])
    problems: list[str] = []
    _suite(config.benchmarks, "paper", problems)
    assert problems == ["benchmarks.data_dir=nowhere: no such folder"]
