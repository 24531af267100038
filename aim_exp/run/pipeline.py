"""The run loop: the stages of the plan, one after the other.

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
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from aim_exp.aim.calibration import CalibrationSet
from aim_exp.aim.dose import RelaxationReport
from aim_exp.aim.pull import AnyRelaxation
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.adapters import open_model
from aim_exp.checkpoint.companions import adapter_warnings, config_warnings
from aim_exp.checkpoint.fit import dtype_warnings, equality_warnings
from aim_exp.checkpoint.hub import download, known_as
from aim_exp.checkpoint.identity import base_warnings
from aim_exp.checkpoint.matching import matched, name_problem, wrapper_warnings
from aim_exp.checkpoint.reader import TIED, Checkpoint
from aim_exp.checkpoint.source import WeightSource
from aim_exp.checkpoint.templates import (
    chat_template,
    stop_tokens,
    template_warnings,
    write_chat_template,
)
from aim_exp.checkpoint.varying import depths, idle
from aim_exp.checkpoint.vocabulary import align, embedding_rows, write_companions
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.console import console, print_warning, progress
from aim_exp.errors import CheckpointError, ConfigError
from aim_exp.evaluate.suite import suite_warnings
from aim_exp.merge.deltas import DeltaTable, delta_table
from aim_exp.merge.fisher import FISHER_FILE
from aim_exp.merge.given import MergedInPart
from aim_exp.merge.groundwork import Material
from aim_exp.merge.method import MergeMethod
from aim_exp.merge.relaxations import relaxation_for
from aim_exp.merge.stream import n_elements, stream_checkpoint, stream_merge
from aim_exp.run.checks import header_problems, misfits, unchecked
from aim_exp.run.plan import MERGED, ModelPlan, Stage
from aim_exp.run.room import check_room
from aim_exp.run.run import ADAPTER, GIVEN_KEY, LAYOUTS, Run
from aim_exp.run.scoring import Scored, score
from aim_exp.store.files import RUN_KEYS, named
from aim_exp.store.keys import StageSpec, canonical_json
from aim_exp.tensors.sink import Discard, Load, Sink
from aim_exp.types import ModelRef

# Transformers' models take seconds to import: what measures with them is imported where it does.
if TYPE_CHECKING:
    from aim_exp.aim.grams import Reader

MODEL_FOLDER = "model"
"""In a run's directory, the merged model where it is kept."""
RELAXATION_FILE = "relaxation.json"
COMPANIONS_FOLDER = "companions"
DELTAS_FILE = "deltas.json"
CALIBRATION_FILE = "calibration.json"


@dataclass
class Results:
    """What a run measured."""

    scores: dict[str, Scored] = field(default_factory=dict)
    """By model (base, experts, references, merged); empty where nothing is scored."""
    relaxation: RelaxationReport | None = None
    """What relaxing changed, by kind of module; None where nothing is merged."""
    deltas: DeltaTable | None = None
    """How the models to merge lie to each other, where nothing is scored."""
    calibration: dict[str, int] = field(default_factory=dict)
    """How many texts, blocks and tokens were used."""
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds, by stage; `total` last."""
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By stage, when it began and ended: seconds after the run's start."""
    waited: dict[str, float] = field(default_factory=dict)
    """By stage, the seconds in which other processes did its work."""
    device: str = ""


class Pipeline:
    """One run, carried out by `execute`."""

    def __init__(self, run: Run, directory: Path) -> None:
        self.run = run
        self.directory = directory
        self.results = Results(device=self.device)
        self._warned: dict[str, list[str]] = {}
        """What scores are warned of, with the models that it is about."""

    def execute(self) -> Results:
        """All stages. A saved model goes to `model/` in the directory. Raises AimError."""
        start = time.monotonic()
        for warning in suite_warnings(self.run.recipe.suite):
            self.results.warnings.append(warning)
            print_warning(console, warning)
        with self._timed("total"):
            check_room(self.run, self.run.plan.stages, self.directory, self.device)
            for stage in self.run.plan.stages:
                began, waited = time.monotonic() - start, self.run.store.waited
                with self._timed(stage.name):
                    self.carry_out(stage)
                span = (round(began, 3), round(time.monotonic() - start, 3))
                self.results.spans[stage.name] = span
                self.results.waited[stage.name] = round(self.run.store.waited - waited, 3)
        for text, models in self._warned.items():
            everywhere = len(models) == len(self.results.scores)
            self.results.warnings.append(text if everywhere else f"{', '.join(models)}: {text}")
        return self.results

    def carry_out(self, stage: Stage) -> None:
        """The stage, if there is room for it."""
        check_room(self.run, [stage], self.directory, self.device)
        stage.carry_out(self)

    def ensure_population(self) -> None:
        """Every model on disk, and all of them fit together."""
        run = self.run
        new = unchecked(run)
        run.source.ensure(run.store, run.recipe.population)
        if run.recipe.given:
            download(run.recipe.given)
        if new:
            models = (run.recipe.population, run.recipe.given)
            problems = misfits(*models, run.settings["vocabulary"], self.layouts)
            problems += header_problems(run)
            if problems:
                raise ConfigError(problems)
        population = run.recipe.population
        self._check_names()
        self.results.warnings += dtype_warnings(self.base, self.experts)
        self.results.warnings += config_warnings(self.base, self.experts)
        for source in dict.fromkeys(self.run.template_sources):
            text = chat_template(source, self.run.template)
            self.results.warnings += template_warnings(source, population.base, text)
        others = [open_model(model) for model in population.experts]
        others += self.experts if run.recipe.given else []
        self.results.warnings += wrapper_warnings([self.base, *others, *self.references])
        self.results.warnings += adapter_warnings([self.base, *others, *self.references])
        self.results.warnings += base_warnings(population.models, run.store.root / "digests")
        self.results.warnings += equality_warnings(self.base, others, self.layouts)

    @property
    def layouts(self) -> Path:
        """Where layouts are remembered."""
        return self.run.store.root / LAYOUTS

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
        return open_model(self.run.recipe.population.base)

    @cached_property
    def experts(self) -> Sequence[Checkpoint]:
        """What the method merges: the experts, or the weights merged elsewhere."""
        recipe = self.run.recipe
        if recipe.given:
            return [open_model(recipe.given, GIVEN_KEY)]
        return [open_model(model) for model in recipe.population.merged_experts]

    @cached_property
    def references(self) -> Sequence[Checkpoint]:
        """What is scored and never merged."""
        return [open_model(model) for model in self.run.recipe.population.references]

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
        """Base and the experts, with the same tensors and one vocabulary."""
        base, experts = matched(self.base, self.experts, self.layouts)
        rule = self.run.recipe.vocabulary
        if self.vocabulary is None or rule is None:
            return base, experts
        method, depth_of = self.run.recipe.method, depths(base.tensors)
        labels = [expert.label for expert in experts]

        def weights(name: str) -> list[float]:
            return method.weights(labels, name, depth_of[name])

        return align(rule, base, experts, self.vocabulary, weights)

    @cached_property
    def method(self) -> MergeMethod:
        """What merges, upon its groundwork if it has any."""
        method, groundwork = self.run.recipe.method, self.run.plan.groundwork
        method = method.upon(self.run.store.path(groundwork)) if groundwork else method
        take = self.run.recipe.take
        return MergedInPart(method=method, take=take) if take else method

    def _check_names(self) -> None:
        """Every tensor has its parameter: of base, whose names are the merge's, and references."""
        problems = []
        for checkpoint in (self.base, *self.references):
            try:
                problems += [problem] if (problem := name_problem(checkpoint, self.layouts)) else []
            except CheckpointError as error:
                self.results.warnings.append(f"{error}: whether its tensors are all is not known")
        if problems:
            raise ConfigError(problems)

    def score_member(self, plan: ModelPlan) -> None:
        """Base, an expert or a reference on every benchmark."""
        model = self.run.recipe.population.model(plan.name)
        home, layout = self.run.recipe.home(model), open_model(model)
        self._score(plan, self._weights(plan, home, layout, _loader(layout)))

    def calibrate(self) -> None:
        """Base's saliency, and the experts' where theirs counts too, in the store."""
        run = self.run
        measured = (run.recipe.population.base, *run.recipe.population.merged_experts)
        folder, *_ = [
            run.store.get_or_make(stage, partial(self._measure, model, run.calibration))
            for stage, model in zip(run.plan.saliencies, measured, strict=False)
        ]
        self.results.calibration = json.loads((folder / CALIBRATION_FILE).read_text())
        used, wanted = self.results.calibration["n_texts"], run.calibration.n_samples
        if used < wanted:
            self.results.warnings.append(
                f"calibration.n_samples={wanted}: only {used} texts were usable"
            )
        unseen = Saliency.load(folder).unseen
        if unseen:
            self.results.warnings.append(
                f"calibration: no token reached {len(unseen)} tensors of experts, which keep "
                f"their merged values: {unseen[0]}, ..."
            )

    def measure_experts(self) -> None:
        """What the method reads of the merged experts on their own texts, in the store."""
        run = self.run
        measure = self._fisher if run.recipe.method.reads == "fisher" else self._measure
        experts = run.recipe.population.merged_experts
        for stage, model in zip(run.plan.statistics, experts, strict=True):
            own = run.calibration.of(model.name)
            run.store.get_or_make(stage, partial(measure, model, own))

    def _fisher(self, measured: ModelRef, calibration: CalibrationSet, folder: Path) -> None:
        """The whole model's, under the checkpoint's names."""
        from aim_exp.aim.fisher import fisher

        live = self._live(measured)
        blocks = calibration.blocks(live.tokenizer)
        blocks.check_rows(live.model.get_input_embeddings().num_embeddings, live.tokenizer)
        with progress("Measuring gradients", len(blocks.ids)) as advance:
            values = fisher(
                live.model,
                blocks.ids,
                advance,
                seed=calibration.seed,
                skip=calibration.skip_positions,
            )
        content = {
            name: place.view(values[place.parameter]).clone()
            for name, place in live.places.items()
            if place.parameter in values
        }
        save_file(content, folder / FISHER_FILE)

    def _live(self, measured: ModelRef) -> Any:
        """The model in memory, with its own weights."""
        checkpoint = open_model(measured)
        plan, home = self.run.plan.member(measured.name), self.run.recipe.home(measured)
        return self._weights(plan, home, checkpoint, _loader(checkpoint)).live()

    def _measure(self, measured: ModelRef, calibration: CalibrationSet, folder: Path) -> None:
        from aim_exp.aim.measure import measure, measure_layerwise
        from aim_exp.checkpoint.layerwise import LayerwiseModel

        recipe = self.run.recipe
        checkpoint = open_model(measured)
        if calibration.offload == "layers":
            model = LayerwiseModel(checkpoint, recipe.dtype, self.device)
            steps, pass_over = len(model.layers), partial(measure_layerwise, model)
        else:
            model = self._live(measured)
            steps, pass_over = 1, partial(measure, model.model)
        blocks = calibration.blocks(model.tokenizer)
        blocks.check_rows(model.model.get_input_embeddings().num_embeddings, model.tokenizer)
        with progress("Measuring activations", len(blocks.ids) * steps) as advance:
            saliency = pass_over(blocks.ids, advance, skip=calibration.skip_positions)
        saliency.on_checkpoint(model.places).with_column_norms(checkpoint).save(folder)
        counts = {
            "n_texts": blocks.n_texts,
            "n_blocks": len(blocks.ids),
            "n_tokens": blocks.n_tokens,
        }
        (folder / CALIBRATION_FILE).write_text(json.dumps(counts))

    def lay_groundwork(self, stage: StageSpec) -> None:
        """What the method works out of the whole models, in the store."""
        run = self.run

        def make(folder: Path) -> None:
            base, experts = self.merging
            with progress("Laying the groundwork", n_elements(base)) as advance:
                material = Material(
                    base,
                    experts,
                    device=self.upload,
                    advance=advance,
                    statistics=[run.store.path(stage) for stage in run.plan.statistics],
                    readers=self._readers,
                )
                run.recipe.method.work_out(material, folder)

        run.store.get_or_make(stage, make)
        texts = run.recipe.expert_texts
        if len({canonical_json(spec) for spec in texts.values()}) < len(texts):
            self.results.warnings.append(
                f"calibration.per_expert: {', '.join(texts)} are not each measured on texts of its "
                "own, which leaves little but the mean of all; give {expert: FILE, ...}"
            )

    def _readers(self) -> list[Reader]:
        """The experts to merge, layer by layer, each with its own texts."""
        from aim_exp.aim.grams import Reader
        from aim_exp.checkpoint.layerwise import LayerwiseModel

        readers = []
        for model in self.run.recipe.population.merged_experts:
            texts = self.run.calibration.of(model.name)
            layerwise = LayerwiseModel(open_model(model), self.run.recipe.dtype, self.device)
            blocks = texts.blocks(layerwise.tokenizer)
            rows = layerwise.model.get_input_embeddings().num_embeddings
            blocks.check_rows(rows, layerwise.tokenizer)
            readers.append(Reader(layerwise, blocks.ids, texts.skip_positions))
        return readers

    def compare_deltas(self, stage: StageSpec) -> None:
        """How the models to merge lie to each other, in the store."""
        folder = self.run.store.get_or_make(
            stage, lambda folder: self._deltas().save(folder / DELTAS_FILE)
        )
        names = [model.label for model in self.merging[1]]
        self.results.deltas = DeltaTable.load(folder / DELTAS_FILE, names)

    def _deltas(self) -> DeltaTable:
        base, experts = self.merging
        with progress("Comparing the deltas", n_elements(base)) as advance:
            return delta_table((base, *experts), device=self.upload, advance=advance)

    def merge(self) -> None:
        """The merged model: kept if asked, scored, and what was relaxed."""
        plan = self.run.plan.merged
        load: Load = self._stream_merge
        layout = self.merging[0]
        if layout.head and not self.base.head:
            own = [expert.label for expert in self.experts if expert.head]
            self.results.warnings.append(
                f"{', '.join(own)}: an output head unlike the embedding; the merge has a head of "
                f"its own too ({TIED}=false), and base's counterpart is its embedding"
            )
        if self.vocabulary:
            rows, before = embedding_rows(layout), embedding_rows(self.base)
            self.results.warnings.append(
                f"vocabulary={self.run.recipe.vocabulary}: the models' vocabularies differ; the "
                f"merged model has {rows} tokens' rows, base {before}"
            )
        recipe = self.run.recipe
        if recipe.relaxes and (unmet := idle(layout.tensors, recipe.aim.exclude)):
            self.results.warnings.append(
                f"aim.exclude={','.join(unmet)}: no tensor has such a name; they are like "
                f"{max(layout.tensors, key=len)}"
            )
        if self.run.save_model:
            load = self._saved(self.directory / MODEL_FOLDER, layout)
        if plan is None:  # without keys nothing is remembered
            if not self.run.save_model:
                self.results.deltas = self._deltas()
                self._stream_merge(Discard())
            return
        if self.run.recipe.suite.benchmarks:
            home = self.run.recipe.population.base
            self._score(plan, self._weights(plan, home, layout, load))
        if not self.run.store.has(plan.weights):
            self._stream_merge(Discard())
        report = self.run.store.path(plan.weights) / RELAXATION_FILE
        self.results.relaxation = RelaxationReport.load(report)

    def _saved(self, target: Path, layout: Checkpoint) -> Load:
        """Write the merge to the folder `target`; what loads it."""
        if self.run.save_model == ADAPTER:
            from aim_exp.checkpoint.adapter_writer import AdapterWriter

            trained_on = known_as(self.run.recipe.population.base)
            with (
                named(target, self.directory, RUN_KEYS),
                AdapterWriter(target, *self.merging, trained_on) as writer,
            ):
                self._streamed(writer, "float32")
            return self._stream_merge
        with (
            named(target, self.directory, RUN_KEYS),
            CheckpointWriter(target, layout, self.run.target_dtype) as writer,
        ):
            self._stream_merge(writer)
        if source := self.run.saved_template:
            text = chat_template(source, self.run.template)
            write_chat_template(target, text, stop_tokens(source))
        return _loader(Checkpoint(target, MERGED))

    def _stream_merge(self, sink: Sink) -> None:
        """Merge into `sink`, and keep what AIM changed in the store."""
        began, run = time.monotonic(), self.run
        report = self._streamed(sink, run.target_dtype)
        self.results.relaxation = report
        if run.plan.merged:
            run.store.get_or_make(
                run.plan.merged.weights,
                lambda folder: report.save(folder / RELAXATION_FILE),
                since=began,
            )

    def _streamed(self, sink: Sink, dtype: str | None) -> RelaxationReport:
        with self._timed("stream"):
            relax = self._relaxation()
            with progress("Merging", n_elements(self.merging[0])) as advance:
                return stream_merge(
                    *self.merging,
                    self.method,
                    sink,
                    seed=self.run.recipe.seed,
                    dtype=dtype,
                    relax=relax,
                    device=self.upload,
                    advance=advance,
                )

    def _relaxation(self) -> AnyRelaxation | None:
        recipe, plan = self.run.recipe, self.run.plan
        if not recipe.relaxes or recipe.omega is None:
            return None
        saliency = [Saliency.load(self.run.store.path(stage)) for stage in plan.saliencies]
        base, experts = self.merging
        if base.head and not self.base.head:
            saliency = [each.untied(base.head) for each in saliency]
        with progress("Surveying the merge", n_elements(base)) as advance:
            return relaxation_for(
                recipe.aim,
                recipe.omega,
                saliency,
                (base, *experts),
                self.method,
                seed=recipe.seed,
                device=self.upload,
                advance=advance,
            )

    def _score(self, plan: ModelPlan, weights: WeightSource) -> None:
        """A model's results."""
        scored = score(self.run, plan, weights, self.directory)
        self.results.scores[plan.name] = scored
        for result in scored.results.values():
            for text in result.warnings:
                self._warned.setdefault(text, []).append(plan.name)

    def _weights(
        self, plan: ModelPlan, home: ModelRef, layout: Checkpoint, load: Load
    ) -> WeightSource:
        """What makes the model of `plan`: `home`'s architecture, filled by `load`."""
        return WeightSource(
            key=plan.weights.key,
            home=home,
            layout=layout,
            vocabulary=self.vocabulary if plan.name == MERGED else None,
            load=load,
            dtype=self.run.recipe.dtype,
            device=self.device,
            layouts=self.layouts,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        elapsed = time.monotonic() - start
        self.results.timings[stage] = round(self.results.timings.get(stage, 0.0) + elapsed, 3)


def _loader(checkpoint: Checkpoint) -> Load:
    def load(sink: Sink) -> None:
        with progress(f"Loading {checkpoint.label}", n_elements(checkpoint)) as advance:
            stream_checkpoint(checkpoint, sink, advance)

    return load
