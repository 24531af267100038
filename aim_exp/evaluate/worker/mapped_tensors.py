"""Tensors in memory that another process fills."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


class MappedTensors:
    """The tensors announced, by name (dtype in torch's words, shape, ...), as they come."""

    def __init__(self, announced: Mapping[str, Sequence[Any]]) -> None:
        self._announced = dict(announced)
        self._memories: dict[str, mmap.mmap] = {}

    def views(
        self, path: str, come: Sequence[tuple[str, int]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Those that have `come`, whole, each at its byte; they change when the next ones do."""
        if path not in self._memories:
            with open(path, "r+b") as file:
                self._memories[path] = mmap.mmap(file.fileno(), 0)
        for name, start in come:
            dtype, shape, *_ = self._announced.pop(name)
            size = torch.Size(shape)
            yield (
                name,
                torch.frombuffer(
                    self._memories[path],
                    dtype=getattr(torch, dtype),
                    count=size.numel(),
                    offset=start,
                ).view(size),
            )

    def end(self) -> None:
        """RuntimeError unless all have come."""
        if self._announced:
            raise RuntimeError(f"the stream ended without {', '.join([*self._announced][:3])}")
