"""Reading a checkpoint: headers at once and without torch, tensors when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from aim_exp.checkpoint.files import CONFIG_FILE, read_json, weight_files
from aim_exp.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

RECOMPUTED = "rotary_emb.inv_freq"
"""A buffer that old versions of transformers saved and new ones compute: no weight."""
HEAD = "lm_head.weight"
TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Safetensors' names of dtypes to torch's."""


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of a tensor; `dtype` in torch's words; `file` holds it."""

    shape: tuple[int, ...]
    dtype: str
    file: Path

    @property
    def is_floating(self) -> bool:
        """Whether the tensor is merged and relaxed, rather than copied from base."""
        return "float" in self.dtype


class Checkpoint:
    """A model folder in the Hugging Face layout: one safetensors file or a sharded index.

    Tensors are views on the memory-mapped files, so a tensor costs memory only where it is
    touched. Raises CheckpointError, naming `label` and the file, for what cannot be read.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self.folder = folder
        self.label = label

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Every tensor's header by name, sorted by file and place, as they are best read."""
        found: dict[str, TensorInfo] = {}
        for file_name, listed in weight_files(self.folder, self.label).items():
            file = self.folder / file_name
            with _opened(self.label, file, "np") as content:
                names = content.offset_keys()
                if absent := sorted((listed or set()) - set(names)):
                    raise CheckpointError(
                        f"{self.label}: {file} lacks {absent[0]}, which the index places there; "
                        "download it again"
                    )
                for name in names:
                    if listed is not None and name not in listed:
                        continue  # the index decides which of two files holds a tensor
                    if name.endswith(RECOMPUTED) or self._is_copy(name):
                        continue
                    part = content.get_slice(name)
                    dtype = TORCH_NAMES.get(part.get_dtype())
                    if dtype is None:
                        raise CheckpointError(
                            f"{self.label}: {file}: tensor {name} has dtype {part.get_dtype()}, "
                            "which is not supported; convert it to bfloat16 first"
                        )
                    found[name] = TensorInfo(tuple(part.get_shape()), dtype, file)
        return found

    def _is_copy(self, name: str) -> bool:
        """Whether a tensor is the embedding again: some files of tied models hold the head too."""
        return name.endswith(HEAD) and self.text_config.get("tie_word_embeddings") is True

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`."""
        return read_json(self.folder / CONFIG_FILE, self.label)

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The language model's settings, which a vision-language model may nest."""
        return {**self.config, **self.config.get("text_config", {})}

    @cached_property
    def parameters(self) -> dict[str, int]:
        """How many floating-point parameters there are of each dtype, in torch's words."""
        counts: dict[str, int] = {}
        for info in self.tensors.values():
            if info.is_floating:
                counts[info.dtype] = counts.get(info.dtype, 0) + math.prod(info.shape)
        if not counts:
            raise CheckpointError(f"{self.label}: {self.folder} holds no floating-point tensor")
        return counts

    @property
    def dtype(self) -> str:
        """The dtype of most parameters, in torch's words."""
        return max(self.parameters, key=lambda dtype: self.parameters[dtype])

    def tensor(self, name: str) -> Tensor:
        """The tensor as stored, a view on the file with at least one axis."""
        info = self.tensors[name]
        if info.file not in self._handles:
            handle = safe_open(info.file, framework="pt")
            self._handles[info.file] = handle
        tensor = self._handles[info.file].get_tensor(name)
        return tensor if tensor.ndim else tensor.reshape(1)

    @cached_property
    def _handles(self) -> dict[Path, Any]:
        return {}


@contextmanager
def _opened(label: str, file: Path, framework: str) -> Iterator[Any]:
    from safetensors import SafetensorError

    try:
        with safe_open(file, framework=framework) as content:
            yield content
    except (SafetensorError, OSError) as error:
        message = f"{label}: {file} is not a readable safetensors file ({error})"
        raise CheckpointError(message) from error
