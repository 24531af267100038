"""A model in memory whose weights are replaced in place, so that it is built only once."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from aim_exp.checkpoint.modules import checkpoint_places, loaded_model, share_head
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.vocabulary import load_tokenizer
from aim_exp.errors import CheckpointError

transformers_logging.disable_progress_bar()  # the terminal belongs to the run's own bars


class LiveModel:
    """A transformers model and its tokenizer; a sink for the tensors of like checkpoints.

    `vocabulary` is a folder with another tokenizer, and a configuration with the number of
    embedding rows that go with it: the weights are then still to come.
    `holds` names the weights it has now, so that nobody loads them twice; `places` says where
    each tensor of the checkpoint is.
    Raises CheckpointError for a checkpoint with missing or unexpected tensors.
    """

    def __init__(
        self, folder: Path, dtype: str, device: str, vocabulary: Path | None = None
    ) -> None:
        checkpoint = Checkpoint(folder, str(folder))
        self.tokenizer: Any = load_tokenizer(Checkpoint(vocabulary or folder, str(folder)))
        model, loading = loaded_model(checkpoint, getattr(torch, dtype))
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if loading[kind]:
                names = ", ".join(sorted(map(str, loading[kind]))[:3])
                raise CheckpointError(f"{folder}: {kind.replace('_', ' ')}: {names}")
        if vocabulary:
            rows = (
                AutoConfig.from_pretrained(vocabulary, trust_remote_code=False)
                .get_text_config()
                .vocab_size
            )
            model.resize_token_embeddings(rows, mean_resizing=False)
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.holds: str | None = None
        self.expect(checkpoint.tensors)

    def expect(self, names: Iterable[str]) -> None:
        """Make ready for a checkpoint with tensors of these names.

        Where no name is the output head's, the head is the embedding; else it is its own tensor.
        """
        self.places = checkpoint_places(self.model, names)
        share_head(self.model, {place.parameter for place in self.places.values()})
        state = self.model.state_dict()
        self._tensors = {name: p.view(state[p.parameter]) for name, p in self.places.items()}

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Replace rows of a tensor; what transformers does not load is passed over."""
        tensor = self._tensors.get(name)
        if tensor is not None:
            (tensor if tensor.ndim else tensor.view(1))[rows].copy_(block)


@lru_cache(maxsize=1)
def live_model(
    folder: Path, identity: str, dtype: str, device: str, vocabulary: Path | None = None
) -> LiveModel:
    """The process's live model of the architecture in `folder`, built when first asked for."""
    return LiveModel(folder, dtype, device, vocabulary)


def forget_live_model() -> None:
    """Give its memory back; the next one asked for is built anew."""
    live_model.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()
