"""`make check-vllm`: an engine of vLLM's that stays, in an environment of its own.

Its answers beside those of fresh engines and of hf, what is left when it is killed, and what a
further model costs. The table at the end goes into docs/vllm.md.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from perf.models import make_family
from test_evaluators import process, source
from test_kept_processes import workers

from aim_exp.checkpoint.live import close_model
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.source import WeightSource
from aim_exp.errors import NonFiniteError
from aim_exp.evaluate.evaluators import Evaluator, HfEvaluator
from aim_exp.evaluate.responses import kept_responses
from aim_exp.evaluate.spec import TINY_TASKS
from aim_exp.merge import TaskArithmetic, Ties
from aim_exp.merge.method import MergeMethod
from aim_exp.merge.stream import stream_merge
from aim_exp.population.embedded.items import KINDS
from aim_exp.tensors.sink import Discard, Sink
from aim_exp.types import Benchmark, ModelRef, Suite

PYTHON = os.environ["VLLM_PYTHON"]
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
VLLM = process(
    backend="vllm", python=PYTHON, batch_size="auto", max_length=256,
    model_args={"enforce_eager": True},
)  # fmt: skip
HF = HfEvaluator(batch_size=64, max_length=256)
METHODS: dict[str, MergeMethod] = {
    "task_arithmetic": TaskArithmetic(weight=1.0, scale=0.5),
    "ties": Ties(weight=1.0, scale=1.0, density=0.2, normalize=True, trim_scope="tensor"),
}
ROUNDS = 3
TEMPLATES = {"default": "Q: {{ m.content }}", "brief": "{{ m.content }}?"}
TEXT = "The sum of two numbers is the same in whichever order they are added up. "
TASKS = {
    "shared": {"description": TEXT * 4, "doc_to_text": "{{question}}"},
    "cut": {"description": TEXT * 40, "doc_to_text": "{{question}}"},
}


@dataclass
class Row:
    what: str
    found: str


ROWS: list[Row] = []


@pytest.fixture(scope="session", autouse=True)
def table() -> Iterator[None]:
    yield
    close_model()
    print()
    for row in ROWS:
        print(f"| {row.what} | {row.found} |")


@pytest.fixture(scope="session")
def population(tiny_population: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded one, with chat templates."""
    folder = tmp_path_factory.mktemp("population")
    shutil.copytree(tiny_population, folder, dirs_exist_ok=True)
    for file in folder.glob("*/tokenizer_config.json"):
        message = "{% for m in messages %}TEXT {% endfor %}"
        templates = [
            {"name": name, "template": message.replace("TEXT", text)}
            for name, text in TEMPLATES.items()
        ]
        settings = json.loads(file.read_text()) | {"chat_template": templates}
        file.write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def suites(tmp_path_factory: pytest.TempPathFactory) -> list[Suite]:
    """The built-in one; prompts of several blocks that begin alike, and that are cut."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"question": f"{i} plus {i + 3} is", "answer": f"{2 * i + 3}"} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, settings in TASKS.items():
        task = {
            "task": name, "dataset_path": "json", "test_split": "test",
            "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
            "output_type": "generate_until", "doc_to_target": "answer", "num_fewshot": 0,
            "generation_kwargs": {"until": [".", "\n\n", "the"], "max_gen_toks": 24,
                                  "do_sample": False},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean",
                             "higher_is_better": True}], **settings,
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(task))
    tiny = Suite(
        name="tiny",
        benchmarks=tuple(Benchmark(f"tiny_{kind}", f"aim_tiny_{kind}") for kind in KINDS),
        task_folder=TINY_TASKS,
        allow_code_execution=True,
    )
    own = Suite(
        name="own", benchmarks=tuple(Benchmark(name, name) for name in TASKS), task_folder=folder
    )
    return [tiny, own, replace(own, chat_template=True), replace(own, chat_template="brief")]


def models(population: Path) -> dict[str, WeightSource]:
    names = ("base", "code", "instruct", "math")
    base, *experts = (Checkpoint(population / name, name) for name in names)
    found = {
        name: replace(source(population / name), home=source(population / "base").home)
        for name in names
    }
    load = partial(_merge, base, experts, METHODS["ties"])
    return found | {"merged": replace(found["base"], key="merged", load=load)}


def _merge(base: Checkpoint, experts: list[Checkpoint], method: MergeMethod, sink: Sink) -> None:
    stream_merge(base, experts, method, sink, seed=0)


@dataclass
class Answers:
    responses: dict[str, Any]
    scores: dict[str, Any]
    warnings: list[str]


def ask(evaluator: Any, weights: WeightSource, suites: list[Suite], folder: Path) -> Answers:
    responses, scores, warnings = {}, {}, []
    folder.mkdir(parents=True)
    with evaluator.harness(weights, folder, folder / "log") as harness:
        for number, suite in enumerate(suites):
            kept = folder / str(number)
            for name, each in harness.evaluate(suite, suite.benchmarks, kept).items():
                scores[f"{number} {name}"] = each.scores.metrics
                warnings += each.scores.warnings
            responses |= {f"{number} {key}": v for key, v in kept_responses(kept).items()}
    return Answers(responses, scores, warnings)


def difference(first: Answers, second: Answers) -> tuple[int, int, float]:
    """Texts, how many differ, and the largest difference of two log-likelihoods."""
    both = first.responses.keys() & second.responses.keys()
    pairs = [(first.responses[key], second.responses[key]) for key in both]
    texts = [a == b for a, b in pairs if isinstance(a, str)]
    numbers = [abs(a[0] - b[0]) for a, b in pairs if not isinstance(a, str)]
    return len(texts), texts.count(False), max(numbers)


def test_the_answers_of_fresh_engines_and_of_hf(
    population: Path, suites: list[Suite], tmp_path: Path
) -> None:
    """Five models and back to the first, by one engine; three by an engine each; and hf's."""
    sources = models(population)
    kept, engines = {}, set[int]()
    for name, weights in sources.items():
        kept[name] = ask(VLLM, weights, suites, tmp_path / name)
        engines.update(workers())
    again = ask(VLLM, sources["base"], suites, tmp_path / "again")
    engines.update(workers())
    assert again == kept["base"]
    assert len([text for text in kept["base"].warnings if "lost their start" in text]) == 3
    ROWS.append(Row(f"{', '.join(sources)} and base again", f"{len(engines)} start"))
    assert len(engines) == 1
    _break_off(sources["code"], suites, tmp_path)
    assert ask(VLLM, sources["code"], suites, tmp_path / "restarted") == kept["code"]

    for name in ("base", "code", "merged"):
        close_model()
        fresh = replace(VLLM, model_args={**VLLM.model_args, "load_format": "safetensors"})
        assert fresh.needs_checkpoint
        answers = ask(fresh, sources[name], suites, tmp_path / f"fresh {name}")
        assert "load_format=safetensors" in " ".join(answers.warnings)
        n, differing, largest = difference(kept[name], answers)
        ROWS.append(
            Row(
                f"{name}, kept engine and fresh one",
                f"{differing} of {n} texts differ, log-likelihoods by {largest:.1g} at most",
            )
        )
        assert (differing, largest, kept[name].scores) == (0, 0.0, answers.scores)

    equal, largest = 0, 0.0
    for name, weights in sources.items():
        answers = ask(HF, weights, suites[:1], tmp_path / f"hf {name}")
        equal += sum(
            all(
                value == kept[name].scores[key][metric]
                for metric, value in metrics.items()
                if metric.partition(",")[0] not in ("gold_loglikelihood", "bits_per_byte")
            )
            for key, metrics in answers.scores.items()
        )
        largest = max(largest, difference(kept[name], answers)[2])
    n_scores = len(KINDS) * len(sources)
    ROWS.append(
        Row("vllm and hf", f"{equal} of {n_scores} scores equal, log-likelihoods to {largest:.1g}")
    )
    assert equal == n_scores
    assert largest < 1e-4


def _break_off(weights: WeightSource, suites: list[Suite], folder: Path) -> None:
    """A stream that does leaves no engine that answers."""

    def broken(sink: Sink) -> None:
        for name in [*weights.layout.tensors][:9]:
            tensor = weights.layout.tensor(name)
            sink.write(name, slice(0, len(tensor)), tensor)
        raise NonFiniteError("expert: holds NaN")

    assert len(workers()) == 1
    with pytest.raises(NonFiniteError):
        ask(VLLM, replace(weights, key="broken", load=broken), suites, folder / "broken")
    assert workers() == []


def test_a_tied_head(population: Path, suites: list[Suite], tmp_path: Path) -> None:
    """Random models whose head is their embedding, one after another, beside hf."""
    config = hf.LlamaConfig(
        vocab_size=768, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    sources = {}
    for seed, name in enumerate(("base", "other")):
        torch.manual_seed(seed)
        hf.LlamaForCausalLM(config).save_pretrained(tmp_path / name)
        hf.AutoTokenizer.from_pretrained(population / "base").save_pretrained(tmp_path / name)
        weights = source(tmp_path / name)
        sources[name] = replace(weights, home=source(tmp_path / "base").home)
    found = [
        {name: ask(evaluator, weights, suites[:1], tmp_path / type(evaluator).__name__ / name)
         for name, weights in sources.items()}
        for evaluator in (VLLM, HF)
    ]  # fmt: skip
    largest = max(difference(found[0][name], found[1][name])[2] for name in sources)
    assert largest < 1e-4
    assert difference(found[0]["base"], found[0]["other"])[2] > largest


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from check_vllm import VLLM, source
with VLLM.harness(source(Path(sys.argv[2])), Path(sys.argv[3]), Path(sys.argv[3]) / "log"):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_killed_run_leaves_no_engine(population: Path, tmp_path: Path) -> None:
    close_model()
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), population / "base", tmp_path],
        stdout=subprocess.PIPE,
    )
    assert run.stdout
    while run.stdout.readline() != b"ready\n":
        assert run.poll() is None, (tmp_path / "log").read_text()[-2000:]
    engine = [pid for pid in tree(run.pid) if pid != run.pid]
    assert engine
    run.send_signal(signal.SIGKILL)
    run.wait()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in engine):
        assert time.monotonic() < until
        time.sleep(0.2)


def smollm2_like(folder: Path, tokenizer: Path) -> list[Path]:
    """Random weights in the shape of SmolLM2-135M, float32."""
    config = hf.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=2048,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(config)
    for name in ("base", "a", "b"):
        model.save_pretrained(folder / name)
        hf.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder / name)
        for parameter in model.parameters():
            parameter.data += 0.001 * torch.randn_like(parameter)
    return [folder / name for name in ("base", "a", "b")]


@pytest.mark.parametrize("size", ["135 M float32", "500 M bfloat16"])
def test_what_a_further_model_costs(size: str, tiny_population: Path, tmp_path: Path) -> None:
    """CPU seconds of this process and the engine's, beside the merge's stream to nowhere.

    Memory that is freed is kept for the next model, so that the first two swaps cost more.
    """
    close_model()
    if size.startswith("135"):
        folders = smollm2_like(tmp_path / "models", tiny_population / "base")
    else:
        folders = make_family(tmp_path / "models", 500_000_000, 2)
    base, *experts = (Checkpoint(folder, folder.name) for folder in folders)
    dtype = size.split()[-1]
    evaluators = {"vllm": VLLM, "hf_process": process(max_length=256), "hf": HF}
    for name, evaluator in evaluators.items():
        close_model()
        number = 0

        def load(method: MergeMethod, evaluator: Evaluator = evaluator) -> None:
            nonlocal number
            number += 1
            weights = WeightSource(
                key=str(number),
                home=ModelRef("base", base.folder, "base"),
                layout=base,
                vocabulary=None,
                load=partial(_merge, base, experts, method),
                dtype=dtype,
                device="cpu",
            )
            with evaluator.harness(weights, tmp_path, tmp_path / "log"):
                pass

        start, *first = [timed(partial(load, METHODS["task_arithmetic"])) for _ in range(3)]
        fetching = " and ".join(f"{each.cpu:.2f}" for each in first)
        for method_name, method in METHODS.items():
            streams, swaps = [], []
            for _ in range(ROUNDS):
                streams.append(timed(partial(_merge, base, experts, method, Discard())))
                swaps.append(timed(partial(load, method)))
            stream = statistics.median(each.cpu for each in streams)
            swap = sorted(swaps, key=lambda each: each.cpu)[ROUNDS // 2]
            parts = [
                f"start {start.cpu:.0f} CPU s ({start.wall:.0f} s), first swaps {fetching}",
                f"stream {stream:.2f} CPU s",
                f"swap {swap.cpu:.2f} CPU s ({swap.wall:.1f} s), of them {swap.below:.2f} in the "
                "process",
                f"{swap.cpu / stream:.1f} times",
            ]
            ROWS.append(Row(f"{name}, {size}, {method_name}", " | ".join(parts)))
        assert len(workers()) == int(evaluator is not HF)
    shutil.rmtree(tmp_path / "models")


@dataclass
class Cost:
    cpu: float
    """Seconds of this process and those below it."""
    below: float
    wall: float


def timed(work: Callable[[], None]) -> Cost:
    before, began = cpu_seconds(), time.monotonic()
    work()
    spent = [after - start for after, start in zip(cpu_seconds(), before, strict=True)]
    return Cost(sum(spent), spent[1], time.monotonic() - began)


def cpu_seconds() -> tuple[float, float]:
    """Of this process, and of those below it."""
    seconds = []
    for pid in tree(os.getpid()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    return seconds[0], sum(seconds[1:])


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    children = [
        int(word)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for word in (thread / "children").read_text().split()
    ]
    return [pid, *(each for child in children for each in tree(child))]
