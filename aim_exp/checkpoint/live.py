"""A model in memory whose weights are replaced in place, so that it is built only once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import CheckpointError


class LiveModel:
    """A transformers model and its tokenizer; a sink for the tensors of like checkpoints.

    `holds` names the weights it has now, so that nobody loads them twice.
    Raises CheckpointError for a checkpoint with missing or unexpected tensors.
    """

    def __init__(self, folder: Path, dtype: str, device: str) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True
        )
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if loading[kind]:
                names = ", ".join(sorted(map(str, loading[kind]))[:3])
                raise CheckpointError(f"{folder}: {kind.replace('_', ' ')}: {names}")
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.holds: str | None = None
        self._places: dict[str, Tensor] = self.model.state_dict()

    def check(self, checkpoint: Checkpoint) -> None:
        """CheckpointError unless the checkpoint's tensors replace every weight of the model."""
        unknown = sorted(set(checkpoint.tensors) - set(self._places))
        # A tied head has a name of its own in the model and the embedding's storage.
        replaced = {self._places[name].data_ptr() for name in checkpoint.tensors if not unknown}
        left = [name for name, t in self._places.items() if t.data_ptr() not in replaced]
        if unknown or left:
            what = f"no place for {unknown[0]}" if unknown else f"nothing for {left[0]}"
            raise CheckpointError(f"{checkpoint.label}: the model has {what}")

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Replace rows of a tensor."""
        place = self._places[name]
        (place if place.ndim else place.view(1))[rows].copy_(block)


@lru_cache(maxsize=1)
def live_model(folder: Path, identity: str, dtype: str, device: str) -> LiveModel:
    """The process's live model of the architecture in `folder`, built when first asked for."""
    return LiveModel(folder, dtype, device)
