"""The run loop: population, scores of its members, saliency, merge, scores of the merge.

Every stage is asked of the store first, so a run does only what no run has done before it;
a run that was cut off goes on where it was when its command is given again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch

from aim_exp.aim.pull import Relaxation
from aim_exp.aim.saliency import Saliency, measure, measure_layerwise
from aim_exp.checkpoint.companions import config_warnings
from aim_exp.checkpoint.fit import dtype_warnings, fit_problems
from aim_exp.checkpoint.hub import download
from aim_exp.checkpoint.layerwise import LayerwiseModel
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.source import WeightSource
from aim_exp.checkpoint.templates import chat_template, template_problems, write_chat_template
from aim_exp.checkpoint.vocabulary import align, embedding_rows, write_companions
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.console import console, print_warning, progress
from aim_exp.errors import ConfigError
from aim_exp.evaluate.suite import suite_warnings
from aim_exp.merge.stream import n_elements, stream_checkpoint, stream_merge
from aim_exp.run.plan import MERGED, ModelPlan
from aim_exp.run.run import GIVEN_KEY, Run
from aim_exp.run.scoring import Scores, score
from aim_exp.tensors.sink import Discard, Load, Sink
from aim_exp.types import ModelRef

MODEL_FOLDER = "model"
"""In a run's directory, the merged model where it is kept."""
RELAXATION_FILE = "relaxation.json"
COMPANIONS_FOLDER = "companions"
CALIBRATION_FILE = "calibration.json"


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
        for warning in suite_warnings(run.recipe.suite):
            self.found.warnings.append(warning)
            print_warning(console, warning)
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
        if recipe.given:
            return [Checkpoint(recipe.given.path, GIVEN_KEY)]
        return [Checkpoint(model.path, model.name) for model in recipe.population.merged_experts]

    @cached_property
    def vocabulary(self) -> Path | None:
        """The merge's tokenizer and configuration, where vocabularies differ."""
        stage, rule = self.run.plan.vocabulary, self.run.recipe.vocabulary
        if stage is None or rule is None:
            return None

        def make(folder: Path) -> None:
            write_companions(rule, self.base, self.experts, folder / COMPANIONS_FOLDER)

        return self.run.store.get_or_make(stage, make) / COMPANIONS_FOLDER

    @cached_property
    def merging(self) -> tuple[Checkpoint, Sequence[Checkpoint]]:
        """Base and the experts, with one vocabulary."""
        rule = self.run.recipe.vocabulary
        if self.vocabulary is None or rule is None:
            return self.base, self.experts
        return align(rule, self.base, self.experts, self.vocabulary)

    def _check_fit(self) -> None:
        run = self.run
        others = [Checkpoint(model.path, model.name) for model in run.recipe.population.experts]
        rule = run.settings["vocabulary"]
        problems = fit_problems(self.base, [*others, *self.experts], rule)
        problems += template_problems(run.template_sources, run.template)
        block_size = run.calibration.block_size
        longest = self.base.text_config.get("max_position_embeddings")
        if run.plan.saliency and longest is not None and block_size > longest:
            problems.append(
                f"calibration.block_size={block_size}: base takes at most {longest} tokens; "
                f"set calibration.block_size={longest}"
            )
        if problems:
            raise ConfigError(problems)
        self.found.warnings += dtype_warnings(self.base, self.experts)
        self.found.warnings += config_warnings(self.base, self.experts)

    def _score_member(self, model: ModelRef) -> None:
        plan = self.run.plan.member(model.name)
        home, load = self.run.recipe.home(model), _loader(Checkpoint(model.path, model.name))
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
        unseen = Saliency.load(folder).unseen
        if unseen:
            self.found.warnings.append(
                f"calibration: no token reached {len(unseen)} tensors of experts, which keep "
                f"their merged values: {unseen[0]}, ..."
            )

    def _measure(self, folder: Path) -> None:
        recipe, calibration = self.run.recipe, self.run.calibration
        base = recipe.population.base
        if calibration.offload == "layers":
            model = LayerwiseModel(self.base, recipe.dtype, self.device)
            steps, pass_over = len(model.layers), partial(measure_layerwise, model)
        else:
            plan, load = self.run.plan.member(base.name), _loader(self.base)
            model = self._weights(plan, base, load).live()
            steps, pass_over = 1, partial(measure, model.model)
        blocks = calibration.blocks(model.tokenizer)
        with progress("Measuring activations", len(blocks.ids) * steps) as advance:
            saliency = pass_over(blocks.ids, recipe.aim.statistic, advance)
        saliency.on_checkpoint(model.places).save(folder)
        counts = {
            "n_texts": blocks.n_texts,
            "n_blocks": len(blocks.ids),
            "n_tokens": blocks.n_tokens,
        }
        (folder / CALIBRATION_FILE).write_text(json.dumps(counts))

    def _merge(self, plan: ModelPlan) -> None:
        load: Load = self._stream_merge
        if self.vocabulary:
            rows, before = embedding_rows(self.merging[0]), embedding_rows(self.base)
            self.found.warnings.append(
                f"vocabulary={self.run.recipe.vocabulary}: the models' vocabularies differ; the "
                f"merged model has {rows} tokens' rows, base {before}"
            )
        if self.run.save_model:
            target = self.directory / MODEL_FOLDER
            with CheckpointWriter(target, self.merging[0], self.run.target_dtype) as writer:
                self._stream_merge(writer)
            if source := self.run.saved_template:
                write_chat_template(target, chat_template(source, self.run.template))
            load = _loader(Checkpoint(target, MERGED))
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
        began = time.monotonic()
        with self._timed("merge"), progress("Merging", n_elements(self.merging[0])) as advance:
            report = stream_merge(
                *self.merging,
                recipe.method,
                sink,
                seed=recipe.seed,
                dtype=run.target_dtype,
                relax=relax,
                device=self.device if self.device.startswith("cuda") else None,
                advance=advance,
            )
        text = json.dumps(report.summary() if relax else {})
        run.store.get_or_make(
            run.plan.merged.weights,
            lambda folder: _write(folder / RELAXATION_FILE, text),
            since=began,
        )

    def _scores(self, plan: ModelPlan, home: ModelRef, load: Load) -> Scores:
        """A model's results, in the record too; `load` fills a model like `home`."""
        scored = score(self.run, plan, self._weights(plan, home, load), self.directory)
        self.found.items[plan.name] = {name: str(path) for name, path in scored.items.items()}
        for name, result in scored.results.items():
            self.found.warnings += [f"{plan.name} on {name}: {text}" for text in result.warnings]
        return scored.results

    def _weights(self, plan: ModelPlan, home: ModelRef, load: Load) -> WeightSource:
        """What makes the model of `plan`: `home`'s architecture, filled by `load`."""
        merged = plan.name == MERGED
        return WeightSource(
            key=plan.weights.key,
            home=home,
            layout=self.merging[0] if merged else Checkpoint(home.path, plan.name),
            vocabulary=self.vocabulary if merged else None,
            load=load,
            dtype=self.run.recipe.dtype,
            device=self.device,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        elapsed = time.monotonic() - start
        self.found.timings[stage] = round(self.found.timings.get(stage, 0.0) + elapsed, 3)


def _loader(checkpoint: Checkpoint) -> Load:
    def load(sink: Sink) -> None:
        with progress(f"Loading {checkpoint.label}", n_elements(checkpoint)) as advance:
            stream_checkpoint(checkpoint, sink, advance)

    return load


def _write(path: Path, text: str) -> None:
    path.write_text(text)
