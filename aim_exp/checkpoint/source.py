"""Weights that are still to go somewhere, and the two places they go to be scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.tensors.sink import Load
from aim_exp.types import ModelRef

if TYPE_CHECKING:
    from aim_exp.checkpoint.live import LiveModel


@dataclass(frozen=True)
class WeightSource:
    """A model that `load` makes: `home`'s architecture, `layout`'s tensors and companion files.

    `key` names the weights' content. `vocabulary` is the folder of another tokenizer and
    configuration than home's, or None. `dtype` and `device` are those of the model; `layouts` is
    where layouts are remembered.
    """

    key: str
    home: ModelRef
    layout: Checkpoint
    vocabulary: Path | None
    load: Load
    dtype: str
    device: str
    layouts: Path | None = None

    def live(self) -> LiveModel:
        """In memory: the process's live model, filled unless it holds these weights."""
        from aim_exp.checkpoint.live import LiveModel, only_model

        home, vocabulary = self.home, self.vocabulary
        if home.adapts:
            home, vocabulary = home.adapts, vocabulary or home.path
        assert home.identity  # what is scored or measured has one
        settings = (home.path, self.dtype, self.device, vocabulary)
        live = only_model((LiveModel, home.identity, *settings), lambda: LiveModel(*settings))
        if live.holds != self.key:
            live.holds = None
            live.expect(self.layout.tensors)
            self.load(live)
            live.holds = self.key
        return live

    def write(self, folder: Path) -> None:
        """On disk, as a checkpoint."""
        with CheckpointWriter(folder, self.layout, self.dtype) as writer:
            self.load(writer)

    def write_hollow(self, folder: Path) -> None:
        """On disk, with holes in its files for weights: it takes no room and reads as zeros."""
        with CheckpointWriter(folder, self.layout, self.dtype):
            pass
