"""How strongly base uses each input channel, as `aim.measure` found it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from aim_exp.checkpoint.layouts import Place
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.tensors.blocks import add_by_channel, row_blocks

FILE_NAME = "saliency.safetensors"
MOMENTS_FILE = "second_moments.safetensors"
NORMS_FILE = "column_norms.safetensors"


@dataclass(frozen=True)
class Saliency:
    """What is known of the input that each weight is applied to, by the weight's name.

    `channels[name]` is E |x_j|, `moments[name]` E x_j^2, both over `tokens` tokens, and
    `column_norms[name]` the norm of the weight's column j, for weights of two axes (empty until
    `with_column_norms`); all are float32 [channels]. `axes[name]` is the weight's input axis.
    `tied` maps an embedding that is the output head too to the name of the head's statistic.
    As measured, names are those of a model's parameters, and a parameter that holds all experts
    of a layer has [experts, channels], zeros where an expert got no token. As stored, names are
    those of a checkpoint's tensors, one for each expert, and the tensors of experts without a
    token are in `unseen` instead.
    """

    channels: Mapping[str, Tensor]
    axes: Mapping[str, int]
    tokens: int
    tied: Mapping[str, str]
    unseen: Sequence[str] = ()
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    column_norms: Mapping[str, Tensor] = field(default_factory=dict)

    def on_checkpoint(self, places: Mapping[str, Place]) -> Saliency:
        """The same for the tensors of a checkpoint, which the measured model holds at `places`."""
        channels: dict[str, Tensor] = {}
        moments: dict[str, Tensor] = {}
        axes: dict[str, int] = {}
        unseen: list[str] = []
        for name, place in places.items():
            source = place.parameter
            if source not in self.channels:
                continue
            part = ... if place.expert is None else place.expert
            if place.expert is not None and not self.channels[source][part].any():
                unseen.append(name)
                continue
            axes[name] = self.axes[source]
            channels[name], moments[name] = self.channels[source][part], self.moments[source][part]
        tied: dict[str, str] = {}
        for embedding, head in self.tied.items():
            axes[head] = self.axes[head]
            channels[head], moments[head] = self.channels[head], self.moments[head]
            shared = (embedding, head)
            tied |= {name: head for name, place in places.items() if place.parameter in shared}
        return Saliency(channels, axes, self.tokens, tied, unseen, moments)

    def with_column_norms(self, checkpoint: Checkpoint) -> Saliency:
        """With those of the weights of `checkpoint`, the model that was measured."""
        sources = {name: name for name in self.channels if name in checkpoint.tensors}
        sources |= {head: name for name, head in self.tied.items()}
        norms = {
            name: column_norms(checkpoint.tensor(source), self.axes[name])
            for name, source in sources.items()
            if len(checkpoint.tensors[source].shape) == 2
        }
        return replace(self, column_norms=norms)

    def source(self, name: str) -> str | None:
        """What the statistics of a tensor's input are called: its own name, or the tied head's."""
        source = self.tied.get(name, name)
        return source if source in self.channels else None

    def statistic(self, name: str, kind: str) -> Tensor:
        """`mean_abs` or `rms` of a weight's input, float32 [channels]."""
        return self.channels[name] if kind == "mean_abs" else self.moments[name].sqrt()

    def untied(self, head: str) -> Saliency:
        """For a merge with a head of its own, called `head`, where the measured model has none."""
        (measured,) = set(self.tied.values())
        return replace(
            self,
            channels={**self.channels, head: self.channels[measured]},
            axes={**self.axes, head: self.axes[measured]},
            moments={**self.moments, head: self.moments[measured]},
            tied={},
        )

    def save(self, folder: Path) -> None:
        """Write a safetensors file for each quantity, the rest in the first one's metadata."""
        metadata = {
            "axes": json.dumps(self.axes),
            "tokens": str(self.tokens),
            "tied": json.dumps(self.tied),
            "unseen": json.dumps(self.unseen),
        }
        for file, values in (
            (FILE_NAME, self.channels),
            (MOMENTS_FILE, self.moments),
            (NORMS_FILE, self.column_norms),
        ):
            # Shared inputs are one tensor here; the format wants copies.
            content = {name: tensor.clone() for name, tensor in values.items()}
            save_file(content, folder / file, metadata if file == FILE_NAME else None)

    @staticmethod
    def load(folder: Path) -> Saliency:
        """Read what `save` wrote."""
        with safe_open(folder / FILE_NAME, framework="pt") as content:
            metadata = content.metadata()
        axes, tied, unseen = (json.loads(metadata[key]) for key in ("axes", "tied", "unseen"))
        channels, moments, norms = (
            load_file(folder / file) for file in (FILE_NAME, MOMENTS_FILE, NORMS_FILE)
        )
        return Saliency(channels, axes, int(metadata["tokens"]), tied, unseen, moments, norms)


def column_norms(weight: Tensor, axis: int) -> Tensor:
    """The norm over a matrix's outputs for each channel of the input axis, float32 [channels]."""
    squares = torch.zeros(weight.shape[axis], dtype=torch.float64)
    for rows in row_blocks(weight.shape):
        add_by_channel(squares, weight[rows].double().square_(), rows, axis)
    return squares.sqrt_().float()
