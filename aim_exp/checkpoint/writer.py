"""Writing a checkpoint as a stream of blocks, in any order, without holding the model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aim_exp.checkpoint.files import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    copy_companions,
    write_json,
)
from aim_exp.checkpoint.reader import TIED, TORCH_NAMES, Checkpoint
from aim_exp.store.files import publish, unfinished

SHARD_BYTES = 5 * 10**9
"""Aim of a file's size, the hub's custom."""

_SAFETENSORS_NAMES = {torch_name: name for name, torch_name in TORCH_NAMES.items()}


class CheckpointWriter:
    """A sink that writes `folder`: weights as they come, the other files from `base`.

    The tensors are base's in name, shape and order; `dtype` (torch's word) replaces the
    dtype of the floating-point ones if given. Use it as a context manager: the folder
    appears under its name only when all is written.
    """

    def __init__(
        self, folder: Path, base: Checkpoint, dtype: str | None, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder = folder
        self._base = base
        self._dtype = dtype
        self._partial = folder
        self._end = ExitStack()
        self._dtypes = {
            name: dtype if dtype and info.is_floating else info.dtype
            for name, info in base.tensors.items()
        }
        self._shards = self._plan_shards(shard_bytes)
        self._places: dict[str, tuple[int, int]] = {}
        self._files: list[int] = []

    def __enter__(self) -> CheckpointWriter:
        """Create the files, headers first: every tensor's place is known from base."""
        self._partial = self._end.enter_context(unfinished(self.folder))
        self._partial.mkdir(parents=True)
        for name, shard in zip(self._shard_names(), self._shards, strict=True):
            self._open_shard(self._partial / name, shard)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Put the folder in place, or remove what there is of it after an error."""
        with self._end:
            for file in self._files:
                os.close(file)
            if error is not None:
                return
            self._write_companions()
            if self.folder.exists():
                self.folder.rename(self._end.enter_context(unfinished(self.folder)))
            publish(self._partial, self.folder)

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Write rows of a tensor at their place; any order, from any thread and device."""
        file, start = self._places[name]
        block = block.to(getattr(torch, self._dtypes[name])).cpu().contiguous()
        row_bytes = block[:1].nbytes
        content = memoryview(block.view(-1).view(torch.uint8).numpy().data)
        place = start + rows.start * row_bytes
        while content:
            written = os.pwrite(file, content, place)
            content, place = content[written:], place + written

    def _open_shard(self, path: Path, shard: Mapping[str, int]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, size in shard.items():
            shape = self._base.tensors[name].shape
            dtype = _SAFETENSORS_NAMES[self._dtypes[name]]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # readers map the data, which must be aligned
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._files.append(file)
        os.write(file, len(text).to_bytes(8, "little") + text)
        start = 8 + len(text)
        os.truncate(file, start + end)
        for name, size in shard.items():
            self._places[name] = (file, start)
            start += size

    def _plan_shards(self, shard_bytes: int) -> list[dict[str, int]]:
        shards: list[dict[str, int]] = [{}]
        filled = 0
        for name, info in self._base.tensors.items():
            size = torch.empty(0, dtype=getattr(torch, self._dtypes[name])).element_size()
            for length in info.shape:
                size *= length
            if shards[-1] and filled + size > shard_bytes:
                shards.append({})
                filled = 0
            shards[-1][name] = size
            filled += size
        return shards

    def _shard_names(self) -> list[str]:
        count = len(self._shards)
        if count == 1:
            return [SINGLE_FILE]
        return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]

    def _write_companions(self) -> None:
        """Config, tokenizer and generation files as they are in base; the index if sharded."""
        copy_companions(self._base.folder, self._partial)
        config = dict(self._base.config)
        if self._dtype:
            config["dtype" if "dtype" in config else "torch_dtype"] = self._dtype
        if self._base.head and config.get(TIED) is not False:
            config = untied(config)
        if config != self._base.config:
            write_json(self._partial / CONFIG_FILE, config)
        if len(self._shards) > 1:
            places = {
                name: file
                for file, shard in zip(self._shard_names(), self._shards, strict=True)
                for name in shard
            }
            total = sum(sum(shard.values()) for shard in self._shards)
            index = {"metadata": {"total_size": total}, "weight_map": places}
            write_json(self._partial / INDEX_FILE, index)


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a model whose output head is a tensor of its own."""
    nested = config.get("text_config")
    texts = {"text_config": {**nested, TIED: False}} if isinstance(nested, Mapping) else {}
    return {**config, **texts, TIED: False}
