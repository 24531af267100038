"""The suites `paper` and `standard`: gold answers, wrong ones, keys, and what is refused."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_rows import GSM8K, write_rows
from conftest import Cli
from hydra import compose, initialize_config_dir
from suites import SUITES, Scripted, gold, suite_of, wrong
from transformers import AutoModelForCausalLM, AutoTokenizer

from aim_exp.app import CONFIG_FOLDER
from aim_exp.evaluate.check import check_suite
from aim_exp.evaluate.harness import Harness, evaluate_task
from aim_exp.evaluate.metrics import headline
from aim_exp.evaluate.spec import task_spec
from aim_exp.evaluate.suite import build_suite
from aim_exp.store.stage_spec import canonical_json
from aim_exp.types import Benchmark, Suite

pytestmark = pytest.mark.usefixtures("nltk_data")

NAMES = {"humaneval", "mbpp", "mmlu", "math", "gsm8k", "ifeval"}


@pytest.fixture(params=SUITES)
def suite(request: pytest.FixtureRequest, data_dir: Path) -> Suite:
    return suite_of(request.param, data_dir)


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


@pytest.mark.slow
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
    assert all(f"| {name}" in report.lower() for name in NAMES)
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
        assert refused.stderr.count(reason) == 3  # of the sweep, before any job; of each job
        assert f"warning: {reason} that models write; set it to true (in every job)" in (
            refused.stderr
        )


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


@pytest.mark.parametrize(
    ("limit", "fine"),
    [("1", True), ("20", True), ("0.1", True), ("null", True), ("3.0", True),
     ("0", False), ("-1", False), ("1.5", False), ("inf", False), ("nan", False)],
)  # fmt: skip
def test_a_limit_is_a_whole_number_or_a_share(limit: str, fine: bool) -> None:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", [f"benchmarks.limit={limit}"])
    problems: list[str] = []
    build_suite(config.benchmarks, "tiny", problems)
    words = (
        f"benchmarks.limit={config.benchmarks.limit}: must be a whole number of items, a share of "
        "them between 0 and 1, or null"
    )
    assert problems == ([] if fine else [words])


def test_a_data_dir_that_is_not_there_is_refused() -> None:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", ["benchmarks=paper", "benchmarks.data_dir=nowhere"])
    problems: list[str] = []
    build_suite(config.benchmarks, "paper", problems)
    assert problems == ["benchmarks.data_dir=nowhere: no such folder"]
