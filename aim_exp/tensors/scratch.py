"""Memory that is used again for every block, instead of asked of the system each time.

A merge is a few additions per weight: the memory of a temporary, handed out by the system in
zeroed pages and given back after every block, would cost more than the arithmetic in it. So
whatever runs once per block works in place, on a buffer of the thread that runs it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor


class Scratch(threading.local):
    """Buffers on a device by name, a set of its own for each thread."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.on_cpu = self.device.type == "cpu"
        """Whether numpy can work on it."""
        self._memory: dict[str, Tensor] = {}
        self._shaped: dict[str, Tensor] = {}

    def __call__(
        self, name: str, shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The buffer `name` in this shape, with whatever was last in it.

        The next call with the name gets the same memory. A name has one dtype.
        """
        shaped = self._shaped.get(name)
        if shaped is None or shaped.shape != shape or shaped.dtype != dtype:
            shaped = self._shaped[name] = self._cut(name, shape, dtype)
        return shaped

    def _cut(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.numel() < size or memory.dtype != dtype:
            self._shaped.pop(name, None)
            memory = self._memory[name] = torch.empty(size, dtype=dtype, device=self.device)
        return memory[:size].view(tuple(shape))
