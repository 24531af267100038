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

from aim_exp.aim.dose import RelaxationReport
from aim_exp.aim.pull import AnyRelaxation
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
from aim_exp.console import progress
from aim_exp.errors import ConfigError
from aim_exp.merge.deltas import DeltaTable, delta_table
from aim_exp.merge.relaxations import relaxation_for
from aim_exp.merge.stream import n_elements, stream_checkpoint, stream_merge
from aim_exp.run.plan import MERGED, ModelPlan
from aim_exp.run.run import GIVEN_KEY, Run
from aim_exp.run.scoring import Scores, score
from aim_exp.store.keys import StageSpec
from aim_exp.tensors.sink import Discard, Load, Sink
from aim_exp.types import ModelRef

MODEL_FOLDER = "model"
"""In a run's directory, the merged model where it is kept."""
RELAXATION_FILE = "relaxation.json"
COMPANIONS_FOLDER = "companions"
DELTAS_FILE = "deltas.json"
CALIBRATION_FILE = "calibration.json"


@dataclass
class Results:
    """What a run has found."""

    members: dict[str, Scores] = field(default_factory=dict)
    """By model (base, experts, references) and benchmark; empty where nothing is scored."""
    merged: Scores | None = None
    items: dict[str, dict[str, str]] = field(default_factory=dict)
    """By model and benchmark, the file of per-item results."""
    relaxation: RelaxationReport | None = None
    """What relaxing changed, by kind of module; None where nothing is merged."""
    deltas: DeltaTable | None = None
    """How the models to merge lie to each other, where nothing is scored."""
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
            if run.plan.deltas:
                self._compare(run.plan.deltas)
            if run.plan.merged:
                self._merge(run.plan.merged)
        return self.found

    @cached_property
    def device(self) -> str:
        """The device of the models."""
        if self.run.device != "auto":
            return self.run.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def upload(self) -> str | None:
        """Where weights are merged: None on the processor, which works on the mapped files."""
        return self.device if self.device.startswith("cuda") else None

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
        measured = [run.recipe.population.base, *run.recipe.population.merged_experts]
        with self._timed("calibrate"):
            folder, *_ = [
                run.store.get_or_make(stage, partial(self._measure, model))
                for stage, model in zip(run.plan.saliencies, measured, strict=False)
            ]
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

    def _measure(self, measured: ModelRef, folder: Path) -> None:
        recipe, calibration = self.run.recipe, self.run.calibration
        checkpoint = Checkpoint(measured.path, measured.name)
        if calibration.offload == "layers":
            model = LayerwiseModel(checkpoint, recipe.dtype, self.device)
            steps, pass_over = len(model.layers), partial(measure_layerwise, model)
        else:
            plan, load = self.run.plan.member(measured.name), _loader(checkpoint)
            model = self._weights(plan, recipe.home(measured), load).live()
            steps, pass_over = 1, partial(measure, model.model)
        blocks = calibration.blocks(model.tokenizer)
        with progress("Measuring activations", len(blocks.ids) * steps) as advance:
            saliency = pass_over(blocks.ids, advance, skip=calibration.skip_positions)
        saliency.on_checkpoint(model.places).with_column_norms(checkpoint).save(folder)
        counts = {
            "n_texts": blocks.n_texts,
            "n_blocks": len(blocks.ids),
            "n_tokens": blocks.n_tokens,
        }
        (folder / CALIBRATION_FILE).write_text(json.dumps(counts))

    def _compare(self, stage: StageSpec) -> None:
        """How the models to merge lie to each other: in the record, and as a file beside it."""
        models = (self.merging[0], *self.merging[1])

        def make(folder: Path) -> None:
            with progress("Comparing the deltas", n_elements(models[0])) as advance:
                delta_table(models, device=self.upload, advance=advance).save(folder / DELTAS_FILE)

        with self._timed("deltas"):
            folder = self.run.store.get_or_make(stage, make)
        names = [model.label for model in models[1:]]
        self.found.deltas = DeltaTable.load(folder / DELTAS_FILE, names)
        text = json.dumps(self.found.deltas.summary(), indent=2)
        (self.directory / DELTAS_FILE).write_text(text)

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
        report = self.run.store.path(plan.weights) / RELAXATION_FILE
        self.found.relaxation = RelaxationReport.load(report)

    def _stream_merge(self, sink: Sink) -> None:
        """Merge into `sink`, and keep what AIM changed in the store."""
        run, recipe = self.run, self.run.recipe
        assert run.plan.merged
        began = time.monotonic()
        with self._timed("merge"):
            relax = self._relaxation()
            with progress("Merging", n_elements(self.merging[0])) as advance:
                report = stream_merge(
                    *self.merging,
                    recipe.method,
                    sink,
                    seed=recipe.seed,
                    dtype=run.target_dtype,
                    relax=relax,
                    device=self.upload,
                    advance=advance,
                )
        run.store.get_or_make(
            run.plan.merged.weights,
            lambda folder: report.save(folder / RELAXATION_FILE),
            since=began,
        )

    def _relaxation(self) -> AnyRelaxation | None:
        recipe, plan = self.run.recipe, self.run.plan
        if not recipe.relaxes or recipe.omega is None:
            return None
        saliency = [Saliency.load(self.run.store.path(stage)) for stage in plan.saliencies]
        base, experts = self.merging
        with progress("Surveying the merge", n_elements(base)) as advance:
            return relaxation_for(
                recipe.aim,
                recipe.omega,
                saliency,
                (base, *experts),
                recipe.method,
                seed=recipe.seed,
                device=self.upload,
                advance=advance,
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
