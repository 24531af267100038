"""Processes of models that stay: other weights are streamed into them, whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from checkpoints import checkpoint
from families import FAMILIES
from test_evaluators import HERE, SUITE, process, source, workers
from test_launchers import carry_out
from worker_tasks import die, score

from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.source import WeightSource
from aim_exp.errors import EvaluationError, NonFiniteError
from aim_exp.evaluate.harness import Harness
from aim_exp.evaluate.remote import weight_stream
from aim_exp.evaluate.remote.model import WORKER, RemoteModel, announcement
from aim_exp.evaluate.remote.weight_stream import WeightStream
from aim_exp.evaluate.responses import kept_responses
from aim_exp.launchers.workers import Workers
from aim_exp.merge import TaskArithmetic
from aim_exp.merge.stream import stream_checkpoint, stream_merge
from aim_exp.tensors.sink import Sink

sys.path.append(str(WORKER.parent))  # as for the script itself
from mapped_tensors import MappedTensors
from model_worker import ModuleWeights


def merged(population: Path, scale: float) -> WeightSource:
    """Base and so much of two experts, by two threads."""
    base, *experts = (checkpoint(population, name) for name in ("base", "code", "math"))
    method = TaskArithmetic(weight=1.0, scale=scale)

    def load(sink: Sink) -> None:
        stream_merge(base, experts, method, sink, seed=0, threads=2)

    return replace(source(population / "base"), key=f"scale {scale}", load=load)


def answers(evaluator: Any, weights: WeightSource, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    with evaluator.harness(weights, folder, folder.with_suffix(".log")) as harness:
        harness.evaluate(SUITE, SUITE.benchmarks, folder)
    return kept_responses(folder)


def test_one_process_for_all_models(tiny_population: Path, tmp_path: Path) -> None:
    """Base, two merges and base again: what the models say here, and nothing written."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, evaluator in (("here", HERE), ("there", process())):
        for number, scale in enumerate((0.0, 0.3, 0.7, 0.0)):
            folder = tmp_path / name / str(number)
            found.setdefault(name, []).append(
                answers(evaluator, merged(tiny_population, scale), folder)
            )
            assert [file.suffix for file in folder.iterdir()] == [".jsonl"]
    for here, there in zip(found["here"], found["there"], strict=True):
        assert here.keys() == there.keys()
        for key, answer in here.items():
            near = answer if isinstance(answer, str) else pytest.approx(answer, abs=1e-5)
            assert there[key] == near
    first, second, third, again = found["there"]
    assert first == again
    assert first != second != third != first
    assert len(workers()) == 1
    assert len(list((tmp_path / "there").glob("*.log"))) <= 1

    weights, folder = merged(tiny_population, 0.7), tmp_path / "checkpoint"
    weights.write(folder)
    arguments = process().arguments(folder, "float32", "cpu")
    fresh = RemoteModel(sys.executable, "hf", arguments, {}, tmp_path / "fresh.log")
    Harness(fresh.lm).evaluate(SUITE, SUITE.benchmarks, tmp_path / "fresh")
    fresh.close()
    assert kept_responses(tmp_path / "fresh") == third


@pytest.mark.slow
def test_another_kind_of_process(tiny_population: Path, tmp_path: Path) -> None:
    """Other arguments, a model in this process or a process that died: one at a time, always."""
    weights = merged(tiny_population, 0.3)
    expected = answers(process(), weights, tmp_path / "first")
    (first,) = workers()
    answers(process(max_length=128), weights, tmp_path / "shorter")
    (second,) = workers()
    assert second != first
    os.kill(second, signal.SIGKILL)
    os.waitid(os.P_PID, second, os.WEXITED | os.WNOWAIT)
    assert answers(process(max_length=128), weights, tmp_path / "killed") == expected
    assert len(workers()) == 1
    weights.live()
    assert workers() == []


@pytest.mark.slow
def test_a_process_ends_with_its_worker(tiny_population: Path, tmp_path: Path) -> None:
    """Each of two workers has one for all its models, until it is killed or closed."""
    engine = Workers(tmp_path, n_jobs=2, gpus_per_job=0)
    tasks = (partial(score, tiny_population, name, tmp_path) for name in ("base", "code") * 2)
    found = defaultdict[int, set[int]](set)
    for ticket in carry_out(engine, *tasks):
        worker, models = cast("tuple[int, list[int]]", ticket.returned)
        found[worker].update(models)
    assert [len(models) for models in found.values()] == [1, 1]
    carry_out(engine, die)
    engine.close()
    until = time.monotonic() + 60
    while any(map(lives, set.union(*found.values()))):
        assert time.monotonic() < until
        time.sleep(0.05)


def lives(pid: int) -> bool:
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return listed.stdout.strip()[:1] not in ("", "Z")


def test_a_stream_that_breaks_off(
    tiny_population: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing answers any more; the next model has a process of its own."""
    weights = merged(tiny_population, 0.3)
    base = weights.layout

    def broken(sink: Sink) -> None:
        for name in [*base.tensors][:5]:
            sink.write(name, slice(0, len(base.tensor(name))), base.tensor(name))
        raise NonFiniteError("expert a: tensor model.norm.weight holds NaN")

    expected = answers(process(), weights, tmp_path / "first")
    with pytest.raises(NonFiniteError, match="holds NaN"):
        answers(process(), replace(weights, key="broken", load=broken), tmp_path / "broken")
    assert "weights came in part; the process is ended" in capsys.readouterr().out
    assert workers() == []
    assert answers(process(), weights, tmp_path / "next") == expected


@pytest.mark.slow
def test_a_process_that_takes_no_weights(tiny_population: Path, tmp_path: Path) -> None:
    """By its settings: a checkpoint for each model, and each score says so."""
    delta = tiny_population / "math"
    evaluator = process(model_args={"delta": str(delta)})
    assert evaluator.needs_checkpoint
    assert not process(model_args={"delta": None}).needs_checkpoint
    weights, folder = merged(tiny_population, 0.0), tmp_path / "folder"
    folder.mkdir()
    with evaluator.harness(weights, folder, tmp_path / "log") as harness:
        (result,) = harness.evaluate(SUITE, SUITE.benchmarks[:1], folder).values()
    assert result.scores.warnings == [
        f"evaluator.model_args.delta={delta}: scored through a temporary checkpoint and a process "
        "of its own"
    ]
    base, expert = checkpoint(tiny_population, "base"), checkpoint(tiny_population, "math")

    def added(sink: Sink) -> None:
        for name in base.tensors:
            tensor = base.tensor(name) + expert.tensor(name)
            sink.write(name, slice(0, len(tensor)), tensor)

    here = tmp_path / "here"
    here.mkdir()
    with HERE.harness(replace(weights, key="sum", load=added), here, tmp_path / "log") as harness:
        harness.evaluate(SUITE, SUITE.benchmarks[:1], here)
    for key, answer in kept_responses(here).items():
        assert kept_responses(folder)[key] == pytest.approx(answer, abs=1e-4)


def test_every_family_takes_what_is_streamed(saved: tuple[str, Path]) -> None:
    """Name for name, experts and towers too: the model that the checkpoint makes."""
    kind, folder = saved
    base, model = checkpoint(folder, "base"), LiveModel(folder / "base", "float32", "cpu").model
    weights = replace(source(folder / "a"), layout=base)
    there = ModuleWeights(model)
    announced = announcement(weights, placed=True)
    assert there.begin_weights(announced) is None
    expert = checkpoint(folder, "a")
    sink = WeightStream(there.take_weights)
    sink.begin({n: kind[:2] for n, kind in announced.items()})
    stream_checkpoint(expert, sink)
    sink.end()
    there.end_weights()
    sink.close()
    fresh = LiveModel(folder / "a", "float32", "cpu").model.state_dict()
    assert fresh
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[name]), f"{kind}: {name}"


def test_there_are_seventeen_families() -> None:
    assert len(FAMILIES) == 17


def test_a_model_of_another_size(family: Path, tiny_population: Path) -> None:
    """Whoever has other parameters says so before anything is filled."""
    model = LiveModel(family / "base", "float32", "cpu").model
    there = ModuleWeights(model)
    announced = announcement(source(tiny_population / "base"), placed=True)
    assert "has the shape" in str(there.begin_weights(announced))
    announced = announcement(source(family / "base"), placed=True)
    del announced["model.norm.weight"]
    refused = there.begin_weights(announced)
    assert refused == "no tensor of the checkpoint is its parameter model.norm.weight"


def test_whole_tensors_come_through_little_memory(
    tiny_population: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several threads, each with a memory as large as the largest tensor, filled many times.

    Those of a model are filled with the next one's too.
    """
    monkeypatch.setattr(weight_stream, "MEMORY", 1)
    mapped = MappedTensors()
    come: dict[str, torch.Tensor] = {}
    paths = set()

    def send(path: str, tensors: Any) -> None:
        paths.add(path)
        come.update((name, view.clone()) for name, view in mapped.views(path, tensors))

    sink = WeightStream(send)
    for scale in (0.3, 0.7):
        weights = merged(tiny_population, scale)
        announced = {name: kind[:2] for name, kind in announcement(weights, placed=False).items()}
        come.clear()
        mapped.begin(announced)
        sink.begin(announced)
        weights.load(sink)
        sink.end()
        mapped.end()
        direct: dict[str, torch.Tensor] = {}
        weights.load(Collect(weights, direct))
        assert come.keys() == direct.keys()
        assert all(torch.equal(come[name], direct[name]) for name in direct)
    assert 1 <= len(paths) <= 2
    sink.begin(announced)
    with pytest.raises(EvaluationError, match=f"ended without {min(announced)}"):
        sink.end()
    sink.close()
    assert not any(Path(path).exists() for path in paths)


@dataclass
class Collect:
    """A sink that keeps everything."""

    weights: WeightSource
    tensors: dict[str, torch.Tensor]

    def write(self, name: str, rows: slice, block: torch.Tensor) -> None:
        shape = self.weights.layout.tensors[name].shape
        self.tensors.setdefault(name, torch.empty(shape))[rows] = block
