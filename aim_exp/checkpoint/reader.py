"""Reading a checkpoint: headers at once and without torch, tensors when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from aim_exp.checkpoint.files import CONFIG_FILE, read_json, weight_files
from aim_exp.checkpoint.names import HEADS, INPUT_EMBEDDINGS, unwrapped
from aim_exp.errors import CheckpointError
from aim_exp.tensors.blocks import row_blocks

if TYPE_CHECKING:
    from torch import Tensor

RECOMPUTED = ("rotary_emb.inv_freq", ".attn.masked_bias")
"""Buffers that old versions of transformers saved and new ones compute: no weights."""
TIED = "tie_word_embeddings"
"""The setting by which the output head is the embedding again."""
TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
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
    """What a header says of a tensor; `dtype` in torch's words; `file` holds it as `stored`.

    `update` is what an adapter adds to it: the tensor is then float32 or wider, whatever is stored.
    """

    shape: tuple[int, ...]
    dtype: str
    file: Path
    stored: str
    update: LowRank | None = None

    @property
    def is_floating(self) -> bool:
        """Whether the tensor is merged and relaxed, rather than copied from base."""
        return "float" in self.dtype


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to a weight [out, in]: `scale B A`, B [out, r], A [r, in].

    `transposed` where the weight is stored [in, out]. Where there is a `magnitude` [out] (DoRA, Liu
    et al. 2024) the norm of what each output takes in is made that afterwards.
    """

    a: TensorInfo
    b: TensorInfo
    scale: float
    transposed: bool = False
    magnitude: TensorInfo | None = None

    def applied(self, weight: Tensor, read: Callable[[TensorInfo], Tensor]) -> Tensor:
        """The adapted weight as a whole, so that blocks change no bit; `read` gives the factors."""
        import torch

        dtype = torch.promote_types(weight.dtype, torch.float32)
        a, b = read(self.a).to(dtype), read(self.b).to(dtype)
        left, right = (a.T, b.T) if self.transposed else (b, a)
        adapted = weight.to(dtype, copy=True).addmm_(left, right, alpha=self.scale)
        if self.magnitude:
            axis = 0 if self.transposed else 1
            magnitude = read(self.magnitude).to(dtype).flatten()
            adapted.mul_((magnitude / adapted.norm(dim=axis)).unsqueeze(axis))
        return adapted


class Checkpoint:
    """A model folder in the Hugging Face layout: one safetensors file or a sharded index.

    Tensors are views on the memory-mapped files, so a tensor costs memory only where it is
    touched. Names are those of the model: what training has wrapped round it comes off. Raises
    CheckpointError, naming `label` and the file, for what cannot be read.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self.folder = folder
        self.label = label

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor's header by name, sorted by file and place, as they are best read.

        An output head that only repeats the embedding is none; one that differs is a tensor of its
        own, whatever the configuration says.
        """
        headers: dict[str, TensorInfo] = {}
        for file, listed in weight_files(self.folder, self.label).items():
            for stored, info in self._headers(self.folder / file, listed):
                name = unwrapped(stored)
                if name in headers:
                    raise CheckpointError(
                        f"{self.label}: {info.file}: {stored} is {name} again; keep one of them"
                    )
                headers[name] = info
        head, embedding = ending(headers, HEADS), ending(headers, INPUT_EMBEDDINGS)
        said = self.config.get(TIED) if head and embedding else False
        if head and embedding and said is not False:
            repeated = equal_values(headers[embedding], headers[head])
            if repeated and (said is True or _tied_by_class(self.folder)):
                del headers[head]
        return headers

    def _headers(
        self, file: Path, listed: frozenset[str] | None
    ) -> Iterator[tuple[str, TensorInfo]]:
        """By the name stored, what a file holds of weights; of `listed` where an index says so."""
        with _opened(self.label, file, "np") as content:
            names = content.offset_keys()
            if odd := [name for name in names if not name or not name.isprintable()]:
                raise CheckpointError(f"{self.label}: {file}: a tensor cannot be called {odd[0]!r}")
            if absent := sorted((listed or set()) - set(names)):
                raise CheckpointError(
                    f"{self.label}: {file} lacks {absent[0]}, which the index places there; "
                    "download it again"
                )
            for name in names:
                if name.endswith(RECOMPUTED) or (listed is not None and name not in listed):
                    continue
                part = content.get_slice(name)
                dtype = TORCH_NAMES.get(part.get_dtype())
                if dtype is None:
                    raise CheckpointError(
                        f"{self.label}: {file}: tensor {name} has dtype {part.get_dtype()}, "
                        "which is not supported; give the model in bfloat16"
                    )
                yield name, TensorInfo(tuple(part.get_shape()), dtype, file, name)

    @property
    def head(self) -> str | None:
        """The output head's name, where it is a tensor of its own."""
        return ending(self.tensors, HEADS)

    @property
    def embedding(self) -> str | None:
        """The input embedding's name."""
        return ending(self.tensors, INPUT_EMBEDDINGS)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """`config.json`."""
        return read_json(self.folder / CONFIG_FILE, self.label)

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The language model's settings, which a vision-language model may nest."""
        nested = self.config.get("text_config")
        if not isinstance(nested, dict | None):
            path = self.folder / CONFIG_FILE
            raise CheckpointError(f"{self.label}: {path}: text_config={nested!r} is not a table")
        return {**self.config, **(nested or {})}

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
        """The tensor as stored, a view on the file with at least one axis; adapted, a copy."""
        info = self.tensors[name]
        tensor = self._stored(info)
        return info.update.applied(tensor, self._stored) if info.update else tensor

    def factors(self, name: str, base: Checkpoint) -> tuple[Tensor, Tensor] | None:
        """Scale B [out, r] and A [r, in] of a tensor that differs from base's by these alone."""
        info, start = self.tensors[name], base.tensors[name]
        whole = info.file, info.stored, info.shape
        if info.update is None or info.update.magnitude:
            return None
        if whole != (start.file, start.stored, start.shape):
            return None
        return self._stored(info.update.b) * info.update.scale, self._stored(info.update.a)

    def added(self, name: str, base: Checkpoint) -> Tensor | None:
        """What an adapter adds to base's tensor, float64; None where it is not by factors alone."""
        info, factors = self.tensors[name], self.factors(name, base)
        if factors is None or info.update is None:
            return None
        b, a = (factor.double() for factor in factors)
        return (b @ a).T if info.update.transposed else b @ a

    def unread(self) -> dict[str, Any]:
        """Every tensor by name, as safetensors' slices: transformers reads them one by one."""
        return {
            name: self.tensor(name)
            if info.update
            else self._handle(info.file).get_slice(info.stored)
            for name, info in self.tensors.items()
        }

    def _stored(self, info: TensorInfo) -> Tensor:
        tensor = self._handle(info.file).get_tensor(info.stored)
        return tensor if tensor.ndim else tensor.reshape(1)

    def _handle(self, file: Path) -> Any:
        if file not in self._handles:
            self._handles[file] = safe_open(file, framework="pt")
        return self._handles[file]

    @cached_property
    def _handles(self) -> dict[Path, Any]:
        return {}


class RenamedCheckpoint(Checkpoint):
    """Tensors of another checkpoint under other names: `sources` maps each to that one's.

    One tensor may have several names, and one without a name is left out.
    """

    def __init__(self, checkpoint: Checkpoint, sources: Mapping[str, str]) -> None:
        super().__init__(checkpoint.folder, checkpoint.label)
        self._tensors = {name: checkpoint.tensors[own] for name, own in sources.items()}

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The headers, in the order of the names given."""
        return self._tensors


def ending(names: Iterable[str], ends: tuple[str, ...]) -> str | None:
    """The first name that ends in one of these ways."""
    return next((name for name in names if name.endswith(ends)), None)


def equal_values(first: TensorInfo, second: TensorInfo) -> bool:
    """Whether two tensors hold the same values, whatever their dtypes; read up to a difference."""
    return _equal(first, second, *_stamps(first), *_stamps(second))


def _stamps(info: TensorInfo) -> Iterator[tuple[int, int]]:
    for file in (info.file, *([info.update.a.file] if info.update else [])):
        status = file.stat()
        yield status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _equal(first: TensorInfo, second: TensorInfo, *stamps: tuple[int, int]) -> bool:
    del stamps  # files that change are read again
    if first.shape != second.shape:
        return False
    if (first.file, first.stored, first.update) == (second.file, second.stored, second.update):
        return True
    with safe_open(first.file, "pt") as one, safe_open(second.file, "pt") as other:
        x, y = _values(first, one), _values(second, other)
        return all(bool((x[rows] == y[rows]).all()) for rows in row_blocks(first.shape))


def _values(info: TensorInfo, content: Any) -> Any:
    """A tensor to take rows of, whole only where it is adapted; `content` is of its file."""

    def read(factor: TensorInfo) -> Tensor:
        with safe_open(factor.file, "pt") as adapter:
            return adapter.get_tensor(factor.stored)

    stored = content.get_slice(info.stored)
    return info.update.applied(stored[:], read) if info.update else stored


def _tied_by_class(folder: Path) -> bool:
    """Whether models of this class share embedding and head unless told otherwise."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError):  # an architecture that transformers does not know
        return False
    return bool(getattr(config, TIED, False))


@contextmanager
def _opened(label: str, file: Path, framework: str) -> Iterator[Any]:
    from safetensors import SafetensorError

    try:
        with safe_open(file, framework=framework) as content:
            yield content
    except (SafetensorError, OSError) as error:
        message = f"{label}: {file} is not a readable safetensors file ({error})"
        raise CheckpointError(message) from error
