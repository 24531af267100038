"""A model in memory whose weights are replaced in place, so that it is built only once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from aim_exp.errors import CheckpointError

transformers_logging.disable_progress_bar()  # the terminal belongs to the run's own bars


class LiveModel:
    """A transformers model and its tokenizer; a sink for the tensors of like checkpoints.

    `holds` names the weights it has now, so that nobody loads them twice.
    Raises CheckpointError for a checkpoint with missing or unexpected tensors.
    """

    def __init__(self, folder: Path, dtype: str, device: str) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True
        )
        model, loading = loaded
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if loading[kind]:
                names = ", ".join(sorted(map(str, loading[kind]))[:3])
                raise CheckpointError(f"{folder}: {kind.replace('_', ' ')}: {names}")
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.holds: str | None = None
        self._places: dict[str, Tensor] = self.model.state_dict()

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Replace rows of a tensor."""
        place = self._places[name]
        (place if place.ndim else place.view(1))[rows].copy_(block)


@lru_cache(maxsize=1)
def live_model(folder: Path, identity: str, dtype: str, device: str) -> LiveModel:
    """The process's live model of the architecture in `folder`, built when first asked for."""
    return LiveModel(folder, dtype, device)
