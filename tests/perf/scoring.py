"""Scoring, measured: `python -m tests.perf.scoring [--against DIR]`.

One process scores base, the experts and two merges of the embedded population on the six
built-in benchmarks, as a sweep does; with `--against`, another checkout does the same with its
own code and evaluator settings, in turn, several rounds. The scores and the texts of both must be
equal, log-likelihoods up to rounding, or the command fails. Imports, training, merging and
loading weights do not count.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MERGES = ("task_arithmetic", "ties")
ROUNDING = 1e-5
"""Relative; a context that is computed once, in other batches, gives other last digits."""


@dataclass(frozen=True)
class Scored:
    """One model in one process: its place in the sweep, seconds, and what came out."""

    model: str
    place: int
    cpu: float
    wall: float
    responses: dict[str, Any]
    scores: dict[str, dict[str, float]]


def main() -> None:
    """Make the models, let each checkout score them in turn, print medians and the ratio."""
    options = _options()
    if options.job:
        _score_all([Path(model) for model in options.models])
        return
    checkouts = {"here": ROOT}
    if options.against:
        checkouts["against"] = Path(options.against).resolve()
    with tempfile.TemporaryDirectory() as folder:
        models = _make_models(Path(options.cache or folder), Path(folder))
        rounds: dict[str, list[list[Scored]]] = {name: [] for name in checkouts}
        for _ in range(options.rounds):
            for name, checkout in checkouts.items():  # in turn: a slow minute hits both alike
                rounds[name].append(_run(checkout, models))
    for name, runs in rounds.items():
        _compare(runs, rounds["here"][0], name)
    _print_table(rounds, options)
    if options.json:
        figures = {n: [[_figures(s) for s in run] for run in runs] for n, runs in rounds.items()}
        Path(options.json).write_text(json.dumps(figures))


def _make_models(cache: Path, folder: Path) -> list[Path]:
    """Base, the experts, and the merges of them all; trained if `cache` has none."""
    from aim_exp import merge
    from aim_exp.checkpoint.reader import Checkpoint
    from aim_exp.checkpoint.writer import CheckpointWriter
    from aim_exp.merge.stream import stream_merge
    from aim_exp.population.embedded import training
    from aim_exp.store.entries import Store
    from aim_exp.store.stage_spec import StageSpec

    population = Store(cache).get_or_make(
        StageSpec("population", 1, training.recipe(0)),
        lambda folder: training.build_population(folder, 0),
    )
    members = [population / name for name in ("base", *training.EXPERTS)]
    methods = {
        "task_arithmetic": merge.TaskArithmetic(weight=1.0, scale=0.5),
        "ties": merge.Ties(weight=1.0, scale=1.0, density=0.2, normalize=True, trim_scope="tensor"),
    }
    base, *experts = (Checkpoint(path, path.name) for path in members)
    for name in MERGES:
        with CheckpointWriter(folder / name, base, None) as writer:
            stream_merge(base, experts, methods[name], writer, seed=0)
    return [*members, *(folder / name for name in MERGES)]


def _run(checkout: Path, models: list[Path]) -> list[Scored]:
    """Score the models with a checkout's code, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-P", __file__, "--job", "--models", *map(str, models)],
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{checkout} failed:\n{done.stderr[-3000:]}")
    return [Scored(**scored) for scored in json.loads(done.stdout.splitlines()[-1])]


def _score_all(models: list[Path]) -> None:
    """The job: every model in the one live model, timed; a JSON line on stdout."""
    import torch
    import yaml

    import aim_exp
    import aim_exp.evaluate.harness
    from aim_exp.checkpoint.reader import Checkpoint
    from aim_exp.checkpoint.source import WeightSource
    from aim_exp.evaluate.evaluators import HfEvaluator
    from aim_exp.evaluate.responses import kept_responses
    from aim_exp.evaluate.spec import TINY_TASKS
    from aim_exp.merge.stream import stream_checkpoint
    from aim_exp.population.embedded.items import KINDS
    from aim_exp.types import Benchmark, ModelRef, Suite

    torch.set_num_threads(1)
    checkout = Path(aim_exp.__file__).parents[1]
    assert checkout == Path.cwd(), f"{checkout} is measured instead of {Path.cwd()}"
    settings = yaml.safe_load((checkout / "conf/evaluator/hf.yaml").read_text())
    evaluator = HfEvaluator(**{k: v for k, v in settings.items() if k != "defaults"})
    suite = Suite(
        name="tiny",
        benchmarks=tuple(Benchmark(f"tiny_{kind}", f"aim_tiny_{kind}") for kind in KINDS),
        task_folder=TINY_TASKS,
        allow_code_execution=True,
    )
    base = Checkpoint(models[0], "base")
    found = []
    for place, path in enumerate(models):
        checkpoint = Checkpoint(path, path.name)
        weights = WeightSource(
            key=str(path),
            home=ModelRef("base", models[0], "base"),
            layout=base,
            vocabulary=None,
            load=lambda sink, checkpoint=checkpoint: stream_checkpoint(checkpoint, sink),
            dtype="float32",
            device="cpu",
        )
        weights.live()
        with tempfile.TemporaryDirectory() as folder:
            responses = Path(folder) / "responses"
            cpu, wall, scores = time.process_time(), time.monotonic(), {}
            with evaluator.harness(weights, Path(folder), Path(folder) / "log") as harness:
                for benchmark, evaluated in _each(harness, suite, responses):
                    scores[benchmark.name] = dict(evaluated.scores.metrics)
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
            answers = kept_responses(responses)
            found.append(asdict(Scored(path.name, place, cpu, wall, answers, scores)))
    print(json.dumps(found))


def _each(harness: Any, suite: Any, responses: Path) -> Iterable[tuple[Any, Any]]:
    """Benchmarks and their results, asked for as the run loop of this checkout does."""
    if hasattr(harness, "each"):
        return harness.each(suite, suite.benchmarks, responses)
    return (
        (benchmark, harness.evaluate(suite, [benchmark], responses)[benchmark.name])
        for benchmark in suite.benchmarks
    )


def _compare(runs: list[list[Scored]], reference: list[Scored], name: str) -> None:
    """Exit if a score or a response differs."""
    for run in runs:
        for ours, theirs in zip(run, reference, strict=True):
            if ours.scores != theirs.scores:
                sys.exit(f"{ours.model}: scores {ours.scores} ({name}) and {theirs.scores}")
            keys = set(ours.responses) | set(theirs.responses)
            differing = [
                k for k in keys if not _same(ours.responses.get(k), theirs.responses.get(k))
            ]
            if differing:
                sys.exit(f"{ours.model}: {len(differing)} of {len(keys)} responses differ ({name})")


def _same(ours: Any, theirs: Any) -> bool:
    """Texts to the letter; of (log-likelihood, is greedy) the number up to ROUNDING."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return ours[1] == theirs[1] and math.isclose(ours[0], theirs[0], rel_tol=ROUNDING)
    return ours == theirs


def _print_table(rounds: dict[str, list[list[Scored]]], options: argparse.Namespace) -> None:
    print(
        f"six benchmarks, {len(rounds['here'][0])} models, one thread; {platform.machine()}, "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; medians of {options.rounds} "
        f"rounds; scores and texts are equal, log-likelihoods to {ROUNDING:g}"
    )
    print(f"{'CPU s per model':20}{'first':>8}{'spread':>14}{'others':>8}{'spread':>14}")
    medians = {}
    for name, runs in rounds.items():
        first = [run[0].cpu for run in runs]
        others = [statistics.mean(scored.cpu for scored in run[1:]) for run in runs]
        medians[name] = statistics.median(first), statistics.median(others)
        print(
            f"{name:20}{medians[name][0]:8.2f}{_spread(first):>14}"
            f"{medians[name][1]:8.2f}{_spread(others):>14}"
        )
    if "against" in rounds:
        first, others = (_ratios(rounds, part) for part in (slice(0, 1), slice(1, None)))
        print(
            f"{'here / against':20}{statistics.median(first):8.2f}{_spread(first):>14}"
            f"{statistics.median(others):8.2f}{_spread(others):>14}"
        )


def _ratios(rounds: dict[str, list[list[Scored]]], part: slice) -> list[float]:
    """CPU seconds here over those of the other checkout, round by round."""
    return [
        sum(scored.cpu for scored in ours[part]) / sum(scored.cpu for scored in theirs[part])
        for ours, theirs in zip(rounds["here"], rounds["against"], strict=True)
    ]


def _spread(values: list[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}"


def _figures(scored: Scored) -> dict[str, Any]:
    return {"model": scored.model, "place": scored.place, "cpu": scored.cpu, "wall": scored.wall}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="DIR", help="another checkout, measured in turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", metavar="DIR", help="a cache_dir with the trained population")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures")
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
