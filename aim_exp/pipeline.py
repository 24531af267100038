"""The run loop: population, scores of its members, saliency, merge, scores of the merge.

Every stage is asked of the store first, so a run does only what no run has done before it;
a run that was cut off goes on where it was when its command is given again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path

import torch

from aim_exp.build import Run
from aim_exp.checkpoint.fit import dtype_warnings, fit_problems
from aim_exp.checkpoint.identity import download
from aim_exp.checkpoint.live import LiveModel, live_model
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.console import progress
from aim_exp.errors import ConfigError
from aim_exp.evaluate.harness import Harness
from aim_exp.evaluate.loading import n_items
from aim_exp.evaluate.results import SAMPLES_FILE, read_result, write_result
from aim_exp.plan import MERGED, ModelPlan
from aim_exp.saliency import Saliency, measure
from aim_exp.streaming import Discard, Relaxation, Sink, stream_checkpoint, stream_merge
from aim_exp.types import Benchmark, BenchmarkResult, ModelRef

RELAXATION_FILE = "relaxation.json"
CALIBRATION_FILE = "calibration.json"
RESPONSES_FILE = "responses.jsonl"

Scores = dict[str, BenchmarkResult]
Load = Callable[[Sink], None]


@dataclass
class Results:
    """What a run has found."""

    members: dict[str, Scores] = field(default_factory=dict)
    """By model (base, experts, references) and benchmark; empty where nothing is scored."""
    merged: Scores | None = None
    items: dict[str, dict[str, str]] = field(default_factory=dict)
    """By model and benchmark, the file of per-item results."""
    relaxation: dict[str, dict[str, float]] = field(default_factory=dict)
    """By kind of module, what AIM changed."""
    calibration: dict[str, int] = field(default_factory=dict)
    """How many texts, blocks and tokens were used."""
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds, by stage; `total` last."""
    device: str = ""


class Pipeline:
    """One run, carried out by `execute`."""

    def __init__(self, run: Run, directory: Path) -> None:
        self.run = run
        self.directory = directory
        self.found = Results()

    def execute(self) -> Results:
        """All stages. A saved model goes to `model/` in the directory. Raises AimError."""
        run, population = self.run, self.run.recipe.population
        self.found.device = self.device
        with self._timed("total"):
            with self._timed("population"):
                run.source.ensure(run.store, population)
                if run.recipe.given:
                    download(run.recipe.given)
            self._check_fit()
            if run.recipe.suite.benchmarks:
                # A reference is another model in memory: first, to make room again.
                for model in (*population.references, population.base, *population.experts):
                    self._score_member(model)
            if run.plan.saliency:
                self._calibrate()
            if run.plan.merged:
                self._merge(run.plan.merged)
        return self.found

    @cached_property
    def device(self) -> str:
        """The device of the models."""
        if self.run.device != "auto":
            return self.run.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def base(self) -> Checkpoint:
        """Base's checkpoint."""
        return Checkpoint(self.run.recipe.population.base.path, "base")

    @cached_property
    def experts(self) -> Sequence[Checkpoint]:
        """What the method merges: the experts, or the weights merged elsewhere."""
        recipe = self.run.recipe
        models = [recipe.given] if recipe.given else recipe.population.merged_experts
        return [Checkpoint(model.path, model.name) for model in models]

    def _check_fit(self) -> None:
        run = self.run
        others = [Checkpoint(model.path, model.name) for model in run.recipe.population.experts]
        problems = fit_problems(self.base, [*others, *self.experts])
        block_size = run.calibration.block_size
        longest = self.base.config.get("max_position_embeddings")
        if run.plan.saliency and longest is not None and block_size > longest:
            problems.append(
                f"calibration.block_size={block_size}: base takes at most {longest} tokens"
            )
        if problems:
            raise ConfigError(problems)
        self.found.warnings += dtype_warnings(self.base, self.experts)

    def _score_member(self, model: ModelRef) -> None:
        plan = self.run.plan.member(model.name)
        is_reference = model in self.run.recipe.population.references
        home = model if is_reference else self.run.recipe.population.base
        load = _loader(model)
        with self._timed(f"score {model.name}"):
            self.found.members[model.name] = self._scores(plan, home, load)

    def _calibrate(self) -> None:
        run = self.run
        assert run.plan.saliency
        with self._timed("calibrate"):
            folder = run.store.get_or_make(run.plan.saliency, self._measure)
        self.found.calibration = json.loads((folder / CALIBRATION_FILE).read_text())
        used, wanted = self.found.calibration["n_texts"], run.calibration.n_samples
        if used < wanted:
            self.found.warnings.append(
                f"calibration.n_samples={wanted}: only {used} texts were usable"
            )

    def _measure(self, folder: Path) -> None:
        base = self.run.recipe.population.base
        live = self._live(self.run.plan.member(base.name), base, _loader(base))
        blocks = self.run.calibration.blocks(live.tokenizer)
        with progress("Measuring activations", len(blocks.ids)) as advance:
            statistic = self.run.recipe.aim.statistic
            measure(live.model, blocks.ids, statistic, advance).save(folder)
        counts = {
            "n_texts": blocks.n_texts,
            "n_blocks": len(blocks.ids),
            "n_tokens": blocks.n_tokens,
        }
        (folder / CALIBRATION_FILE).write_text(json.dumps(counts))

    def _merge(self, plan: ModelPlan) -> None:
        load: Load = self._stream_merge
        if self.run.save_model:
            target = self.directory / "model"
            with CheckpointWriter(target, self.base, self.run.target_dtype) as writer:
                self._stream_merge(writer)
            load = partial(stream_checkpoint, Checkpoint(target, MERGED))
        if self.run.recipe.suite.benchmarks:
            with self._timed("score merged"):
                home = self.run.recipe.population.base
                self.found.merged = self._scores(plan, home, load)
        if not self.run.store.has(plan.weights):
            self._stream_merge(Discard())
        summary = self.run.store.path(plan.weights) / RELAXATION_FILE
        self.found.relaxation = json.loads(summary.read_text())

    def _stream_merge(self, sink: Sink) -> None:
        """Merge into `sink`, and keep what AIM changed in the store."""
        run, recipe = self.run, self.run.recipe
        assert run.plan.merged
        relax = None
        if run.plan.saliency and recipe.omega is not None:
            saliency = Saliency.load(run.store.path(run.plan.saliency))
            relax = Relaxation(saliency, recipe.omega, recipe.aim, recipe.seed)
        with self._timed("merge"):
            report = stream_merge(
                self.base,
                self.experts,
                recipe.method,
                sink,
                seed=recipe.seed,
                dtype=run.target_dtype,
                relax=relax,
            )
        text = json.dumps(report.summary() if relax else {})
        run.store.get_or_make(
            run.plan.merged.weights, lambda folder: _write(folder / RELAXATION_FILE, text)
        )

    def _scores(self, plan: ModelPlan, home: ModelRef, load: Load) -> Scores:
        """A model's results, from the store or from lm-eval; `load` fills a model like `home`."""
        store, suite = self.run.store, self.run.recipe.suite

        def missing() -> list[Benchmark]:
            return [b for b in suite.benchmarks if not store.has(plan.scores[b.name])]

        if missing():
            with store.growing(plan.responses) as folder:
                # Asked again: another process may have scored it while this one waited.
                self._score(plan, missing(), home, load, folder / RESPONSES_FILE)
        folders = {b: store.path(plan.scores[b.name]) for b in suite.benchmarks}
        self.found.items[plan.name] = {
            b.name: str(folder / SAMPLES_FILE) for b, folder in folders.items()
        }
        results = {b.name: read_result(folder, b) for b, folder in folders.items()}
        for name, result in results.items():
            self.found.warnings += [f"{plan.name} on {name}: {text}" for text in result.warnings]
        return results

    def _score(
        self,
        plan: ModelPlan,
        benchmarks: Sequence[Benchmark],
        home: ModelRef,
        load: Load,
        responses: Path,
    ) -> None:
        """Ask lm-eval, and keep each benchmark's results as soon as they are there."""
        run, suite = self.run, self.run.recipe.suite
        total = sum(n_items(suite, benchmark) for benchmark in benchmarks)
        with progress(f"Scoring {plan.name}", total) as advance:
            for benchmark in benchmarks:
                live = self._live(plan, home, load)
                harness = _harness(live, run.evaluator.batch_size, run.evaluator.max_length)
                evaluated = harness.evaluate(suite, [benchmark], responses, advance)
                run.store.get_or_make(
                    plan.scores[benchmark.name],
                    partial(write_result, evaluated=evaluated[benchmark.name]),
                )

    def _live(self, plan: ModelPlan, home: ModelRef, load: Load) -> LiveModel:
        """The live model of `home`'s architecture with the weights of `plan` in it."""
        live = live_model(home.path, home.identity, self.run.recipe.dtype, self.device)
        if live.holds != plan.weights.key:
            live.holds = None
            load(live)
            live.holds = plan.weights.key
        return live

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        elapsed = time.monotonic() - start
        self.found.timings[stage] = round(self.found.timings.get(stage, 0.0) + elapsed, 3)


@lru_cache(maxsize=1)
def _harness(live: LiveModel, batch_size: int, max_length: int | None) -> Harness:
    return Harness(live.model, live.tokenizer, batch_size=batch_size, max_length=max_length)


def _loader(model: ModelRef) -> Load:
    return partial(stream_checkpoint, Checkpoint(model.path, model.name))


def _write(path: Path, text: str) -> None:
    path.write_text(text)
