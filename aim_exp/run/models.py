"""A run's models: their checkpoints as they are merged, and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from aim_exp.checkpoint.adapters import open_model
from aim_exp.checkpoint.matching import matched
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.source import WeightSource
from aim_exp.checkpoint.varying import depths
from aim_exp.checkpoint.vocabulary import align, write_companions
from aim_exp.console import progress
from aim_exp.merge.given import MergedInPart
from aim_exp.merge.method import MergeMethod
from aim_exp.merge.stream import n_elements, stream_checkpoint
from aim_exp.run.keys import ModelPlan
from aim_exp.run.recipe import MERGED
from aim_exp.run.run import GIVEN_KEY, LAYOUTS, Run
from aim_exp.tensors.sink import Load, Sink
from aim_exp.types import ModelRef

COMPANIONS_FOLDER = "companions"


class Models:
    """The models of `run`, opened when they are first asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run

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

        return align(
            rule,
            base,
            experts,
            self.vocabulary,
            lambda name: method.weights(labels, name, depth_of[name]),
        )

    @cached_property
    def method(self) -> MergeMethod:
        """What merges, upon its groundwork if it has any."""
        method, groundwork = self.run.recipe.method, self.run.plan.groundwork
        method = method.upon(self.run.store.path(groundwork)) if groundwork else method
        take = self.run.recipe.take
        return MergedInPart(method=method, take=take) if take else method

    def live(self, measured: ModelRef) -> Any:
        """The model in memory, with its own weights."""
        checkpoint = open_model(measured)
        plan, home = self.run.plan.member(measured.name), self.run.recipe.home(measured)
        return self.weights(plan, home, checkpoint, loader(checkpoint)).live()

    def weights(
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


def loader(checkpoint: Checkpoint) -> Load:
    """What loads a checkpoint as it is."""

    def load(sink: Sink) -> None:
        with progress(f"Loading {checkpoint.label}", n_elements(checkpoint)) as advance:
            stream_checkpoint(checkpoint, sink, advance)

    return load
