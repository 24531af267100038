"""Tensors in memory that another process fills."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


class MappedTensors:
    """Tensors in memory that another process fills, one model's after another's."""

    def __init__(self) -> None:
        self._memories: dict[str, mmap.mmap] = {}

    def begin(self, announced: Mapping[str, Sequence[Any]]) -> None:
        """Those announced, by name (dtype in torch's words, shape, ...), will come."""
        self._announced = dict(announced)

    def views(
        self, path: str, come: Sequence[tuple[str, int]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Those that have `come`, whole, each at its byte; they change when the next ones do."""
        memory = self._memories.get(path)
        if memory is None or len(memory) < os.stat(path).st_size:
            with open(path, "r+b") as file:
                memory = self._memories[path] = mmap.mmap(file.fileno(), 0)
        for name, start in come:
            dtype, shape, *_ = self._announced.pop(name)
            size = torch.Size(shape)
            view = torch.frombuffer(
                memory, dtype=getattr(torch, dtype), count=size.numel(), offset=start
            )
            yield name, view.view(size)

    def end(self) -> None:
        """RuntimeError unless all have come."""
        if self._announced:
            raise RuntimeError(f"the stream ended without {', '.join([*self._announced][:3])}")
