"""Where models hold the tensors of checkpoints: remembered, so that none is built twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aim_exp.checkpoint.digests import remember, text_digest
from aim_exp.checkpoint.reader import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 2
"""Counts up where other places are found for the same names."""


@dataclass(frozen=True)
class Place:
    """Where a model holds a checkpoint tensor: a parameter (or buffer), or a part of one.

    Where a parameter holds all experts of a layer, [experts, out, in], the tensor is of
    expert number `expert`: the `part`-th of `parts` matrices that lie one after another.
    """

    parameter: str
    expert: int | None = None
    part: int = 0
    parts: int = 1

    def view(self, parameter: Tensor) -> Tensor:
        """The tensor itself, sharing the parameter's memory."""
        if self.expert is None:
            return parameter
        return parameter[self.expert].chunk(self.parts)[self.part]


@dataclass(frozen=True)
class Layout:
    """How a checkpoint's tensors fill a model.

    `places` are those of its weights; `ignored` the tensors that are none: buffers that the model
    makes itself, and what transformers passes over. `stray` tensors have no place, `absent`
    parameters no tensor, `unlike` ones another shape than the parameter, which is told. `integers`
    are places of integers; all others are of floats.
    """

    places: Mapping[str, Place]
    integers: Sequence[str]
    ignored: Sequence[str]
    stray: Sequence[str]
    absent: Sequence[str]
    unlike: Mapping[str, Sequence[int]]


def layout(checkpoint: Checkpoint, memo: Path | None = None) -> Layout:
    """How the checkpoint's tensors fill its model.

    Remembered under `memo` by configuration, names, shapes and transformers' version; only for what
    is not there yet is transformers imported, and a model built without memory. Raises
    CheckpointError for an architecture that transformers does not know by itself.
    """
    shapes = {name: info.shape for name, info in sorted(checkpoint.tensors.items())}
    spec = [VERSION, version("transformers"), checkpoint.config, checkpoint.head, shapes]
    entry = memo and memo / text_digest(json.dumps(spec, sort_keys=True)).partition(":")[2]
    with suppress(OSError, ValueError, KeyError, TypeError):  # no such note, or one cut short
        if entry:
            return _read(entry, entry.stat().st_mtime_ns)
    from aim_exp.checkpoint.modules import built_layout

    known = built_layout(checkpoint, shapes)
    if entry:
        remember(entry, json.dumps(asdict(known)))
    return known


@cache
def _read(entry: Path, changed: int) -> Layout:
    del changed
    known = Layout(**json.loads(entry.read_text()))
    places: Any = known.places
    return replace(known, places={name: Place(**place) for name, place in places.items()})
