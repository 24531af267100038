"""A model in memory whose weights are replaced in place, so that it is built only once."""

import atexit
import gc
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

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

    def close(self) -> None:
        """Let go of the weights."""
        self.model, self._tensors = None, {}


class Model(Protocol):
    """One that takes much memory, here or in a process of its own."""

    def close(self) -> None:
        """Give the memory back."""
        ...


M = TypeVar("M", bound=Model)
_only: dict[Hashable, Any] = {}


def only_model(key: Hashable, make: Callable[[], M]) -> M:
    """The process's only model: what `make` gave for this key, another one's being closed first."""
    if key not in _only:
        close_model()
        _only[key] = make()
    return _only[key]


def close_model() -> None:
    """Give the memory of the only model back; the next one asked for is made anew."""
    if _only:
        _end_model()
        gc.collect()
        torch.cuda.empty_cache()


@atexit.register
def _end_model() -> None:
    while _only:
        _only.popitem()[1].close()
