"""The run loop: the stages of the plan, one after the other.

Every stage is asked of the store first, so a run does only what no run has done before it;
a run that was cut off goes on where it was when its command is given again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aim_exp.aim.dose import RelaxationReport
from aim_exp.aim.pull import AnyRelaxation
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.adapters import open_model
from aim_exp.checkpoint.companions import adapter_warnings, config_warnings
from aim_exp.checkpoint.decoders import is_whole
from aim_exp.checkpoint.fit import dtype_warnings, equality_warnings
from aim_exp.checkpoint.hub import download, known_as
from aim_exp.checkpoint.identity import base_warnings
from aim_exp.checkpoint.matching import name_problem, wrapper_warnings
from aim_exp.checkpoint.reader import TIED, Checkpoint
from aim_exp.checkpoint.source import WeightSource
from aim_exp.checkpoint.templates import (
    chat_template,
    stop_tokens,
    template_warnings,
    write_chat_template,
)
from aim_exp.checkpoint.varying import idle
from aim_exp.checkpoint.vocabulary import embedding_rows
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.console import console, print_warning, progress
from aim_exp.errors import CheckpointError, ConfigError
from aim_exp.evaluate.suite import suite_warnings
from aim_exp.merge.deltas import DeltaTable, delta_table
from aim_exp.merge.groundwork import Material
from aim_exp.merge.relaxations import relaxation_for
from aim_exp.merge.stream import n_elements, stream_merge
from aim_exp.run.checks import header_problems, misfits, unchecked
from aim_exp.run.keys import ModelPlan
from aim_exp.run.measuring import CALIBRATION_FILE, measure_activations, measure_fisher, readers
from aim_exp.run.models import Models, loader
from aim_exp.run.plan import Stage
from aim_exp.run.recipe import MERGED
from aim_exp.run.room import check_room
from aim_exp.run.run import ADAPTER, Run
from aim_exp.run.scoring import Scored, score
from aim_exp.store.files import RUN_KEYS, named
from aim_exp.store.stage_spec import StageSpec, canonical_json
from aim_exp.tensors.sink import Discard, Load, Sink

MODEL_FOLDER = "model"
"""In a run's directory, the merged model where it is kept."""
RELAXATION_FILE = "relaxation.json"
DELTAS_FILE = "deltas.json"


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
        self.models = Models(run)
        self.results = Results(device=self.models.device)
        self._warned: dict[str, list[str]] = {}
        """What scores are warned of, with the models that it is about."""

    def execute(self) -> Results:
        """All stages. A saved model goes to `model/` in the directory. Raises AimError."""
        start = time.monotonic()
        for warning in suite_warnings(self.run.recipe.suite):
            self.results.warnings.append(warning)
            print_warning(console, warning)
        with self._timed("total"):
            check_room(self.run, self.run.plan.stages, self.directory, self.models.device)
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
        check_room(self.run, [stage], self.directory, self.models.device)
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
            problems = misfits(*models, run.settings["vocabulary"], self.models.layouts)
            problems += header_problems(run)
            if problems:
                raise ConfigError(problems)
        self._check_names()
        population, base = run.recipe.population, self.models.base
        warnings = self.results.warnings
        warnings += dtype_warnings(base, self.models.experts)
        warnings += config_warnings(base, self.models.experts)
        for source in dict.fromkeys(run.template_sources):
            text = chat_template(source, run.template)
            warnings += template_warnings(source, population.base, text)
        others = [open_model(model) for model in population.experts]
        others += self.models.experts if run.recipe.given else []
        every = [base, *others, *self.models.references]
        warnings += wrapper_warnings(every)
        warnings += adapter_warnings(every)
        warnings += base_warnings(population.models, run.store.root / "digests")
        warnings += equality_warnings(base, others, self.models.layouts)

    def _check_names(self) -> None:
        """Every tensor has its parameter: of base, whose names are the merge's, and references."""
        problems = []
        for checkpoint in (self.models.base, *self.models.references):
            if is_whole(checkpoint):
                continue
            try:
                if problem := name_problem(checkpoint, self.models.layouts):
                    problems.append(problem)
            except CheckpointError as error:
                self.results.warnings.append(f"{error}: whether its tensors are all is not known")
        if problems:
            raise ConfigError(problems)

    def score_member(self, plan: ModelPlan) -> None:
        """Base, an expert or a reference on every benchmark."""
        model = self.run.recipe.population.model(plan.name)
        home, layout = self.run.recipe.home(model), open_model(model)
        self._score(plan, self.models.weights(plan, home, layout, loader(layout)))

    def calibrate(self) -> None:
        """Base's saliency, and the experts' where theirs counts too, in the store."""
        run = self.run
        measured = (run.recipe.population.base, *run.recipe.population.merged_experts)
        folder, *_ = [
            run.store.get_or_make(
                stage, partial(measure_activations, self.models, model, run.calibration)
            )
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
        gradients = run.recipe.method.reads == "fisher"
        measure = measure_fisher if gradients else measure_activations
        experts = run.recipe.population.merged_experts
        for stage, model in zip(run.plan.statistics, experts, strict=True):
            own = run.calibration.of(model.name)
            run.store.get_or_make(stage, partial(measure, self.models, model, own))

    def lay_groundwork(self, stage: StageSpec) -> None:
        """What the method works out of the whole models, in the store."""
        run = self.run

        def make(folder: Path) -> None:
            base, experts = self.models.merging
            with progress("Laying the groundwork", n_elements(base)) as advance:
                material = Material(
                    base,
                    experts,
                    device=self.models.upload,
                    advance=advance,
                    statistics=[run.store.path(stage) for stage in run.plan.statistics],
                    readers=lambda: readers(self.models),
                )
                run.recipe.method.work_out(material, folder)

        run.store.get_or_make(stage, make)
        texts = run.recipe.expert_texts
        if len({canonical_json(spec) for spec in texts.values()}) < len(texts):
            self.results.warnings.append(
                f"calibration.per_expert: {', '.join(texts)} are not each measured on texts of its "
                "own, which leaves little but the mean of all; give {expert: FILE, ...}"
            )

    def compare_deltas(self, stage: StageSpec) -> None:
        """How the models to merge lie to each other, in the store."""
        folder = self.run.store.get_or_make(
            stage, lambda folder: self._deltas().save(folder / DELTAS_FILE)
        )
        names = [model.label for model in self.models.merging[1]]
        self.results.deltas = DeltaTable.load(folder / DELTAS_FILE, names)

    def _deltas(self) -> DeltaTable:
        base, experts = self.models.merging
        with progress("Comparing the deltas", n_elements(base)) as advance:
            return delta_table((base, *experts), device=self.models.upload, advance=advance)

    def merge(self) -> None:
        """The merged model: kept if asked, scored, and what was relaxed."""
        plan = self.run.plan.merged
        load: Load = self._stream_merge
        layout = self.models.merging[0]
        if layout.head and not self.models.base.head:
            own = [expert.label for expert in self.models.experts if expert.head]
            self.results.warnings.append(
                f"{', '.join(own)}: an output head unlike the embedding; the merge has a head of "
                f"its own too ({TIED}=false), and base's counterpart is its embedding"
            )
        if self.models.vocabulary:
            rows, before = embedding_rows(layout), embedding_rows(self.models.base)
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
            self._score(plan, self.models.weights(plan, home, layout, load))
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
                AdapterWriter(target, *self.models.merging, trained_on) as writer,
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
        return loader(Checkpoint(target, MERGED))

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
            with progress("Merging", n_elements(self.models.merging[0])) as advance:
                return stream_merge(
                    *self.models.merging,
                    self.models.method,
                    sink,
                    seed=self.run.recipe.seed,
                    dtype=dtype,
                    relax=relax,
                    device=self.models.upload,
                    advance=advance,
                )

    def _relaxation(self) -> AnyRelaxation | None:
        recipe, plan = self.run.recipe, self.run.plan
        if not recipe.relaxes or recipe.omega is None:
            return None
        saliency = [Saliency.load(self.run.store.path(stage)) for stage in plan.saliencies]
        base, experts = self.models.merging
        if base.head and not self.models.base.head:
            saliency = [each.untied(base.head) for each in saliency]
        with progress("Surveying the merge", n_elements(base)) as advance:
            return relaxation_for(
                recipe.aim,
                recipe.omega,
                saliency,
                (base, *experts),
                self.models.method,
                seed=recipe.seed,
                device=self.models.upload,
                advance=advance,
            )

    def _score(self, plan: ModelPlan, weights: WeightSource) -> None:
        """A model's results."""
        scored = score(self.run, plan, weights, self.directory)
        self.results.scores[plan.name] = scored
        for result in scored.results.values():
            for text in result.warnings:
                self._warned.setdefault(text, []).append(plan.name)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        elapsed = time.monotonic() - start
        self.results.timings[stage] = round(self.results.timings.get(stage, 0.0) + elapsed, 3)
