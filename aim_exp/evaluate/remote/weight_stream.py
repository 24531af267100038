"""Weights for another process of this machine, through memory that both map.

`model` sends them; `worker/` takes them, `worker/vllm_weights.py` into a running engine of vLLM's.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Lock, get_ident

import torch
from torch import Tensor

from aim_exp.errors import EvaluationError

Announced = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensors by name: dtype, in torch's words, and shape."""
Send = Callable[[str, Sequence[tuple[str, int]]], None]
"""Hands over tensors, each with its byte in the memory at a path; that is free on return."""

MEMORY = 1 << 26
"""Bytes for each thread that writes; more where a tensor takes more."""
ALIGNMENT = 64
"""Bytes; where a tensor starts is a multiple of it."""


class WeightStream:
    """A sink that sends whole tensors, of one model after another, whenever its memory is full.

    What was not announced is passed over. Several threads may write, each one tensor at a time,
    into memories of their own: none waits for another, which may have failed.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lanes: dict[int, _Lane] = {}
        """By the thread that writes."""
        self._idle: list[_Lane] = []
        self._lock = Lock()

    def begin(self, announced: Announced) -> None:
        """A model's tensors come next."""
        self._announced, self._sent = announced, set[str]()
        self._size = max(MEMORY, *(_n_bytes(*kind) for kind in announced.values()))

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Take rows of a tensor."""
        if name not in self._announced:
            return
        lane = self._lanes.get(get_ident())
        if lane is None:
            lane = self._lanes[get_ident()] = self._free_lane()
        if name != lane.name:
            dtype, shape = self._announced[name]
            if lane.end + _n_bytes(dtype, shape) > self._size:
                self._flush(lane)
            lane.begin(name, dtype, shape)
        lane.write(rows, block)

    def end(self) -> None:
        """Send the rest. EvaluationError unless all that was announced has come."""
        for lane in self._lanes.values():
            self._flush(lane)
        if missing := sorted(set(self._announced) - self._sent):
            raise EvaluationError(f"evaluator: the stream of weights ended without {missing[0]}")
        self._idle += self._lanes.values()
        self._lanes.clear()

    def close(self) -> None:
        """Give the memory back."""
        for lane in (*self._lanes.values(), *self._idle):
            lane.close()

    def _free_lane(self) -> _Lane:
        with self._lock:
            lane = self._idle.pop() if self._idle else _Lane()
        lane.hold(self._size)
        return lane

    def _flush(self, lane: _Lane) -> None:
        if lane.whole:
            with self._lock:
                self._send(lane.path, lane.whole)
                self._sent.update(name for name, _ in lane.whole)
        lane.whole, lane.end, lane.name = [], 0, None


class _Lane:
    """Bytes with a thread's tensors one after another, at a path by which others map them.

    On Linux they are in no file system: /dev/shm is small in containers.
    """

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("aim_exp")
            self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        else:
            self._descriptor, self.path = tempfile.mkstemp()
        self._bytes = torch.empty(0)
        self.whole: list[tuple[str, int]] = []
        """Names, and where they start."""
        self.end = 0
        self.name: str | None = None
        """Of the tensor that comes, and how many of its rows have."""
        self._rows = 0

    def hold(self, size: int) -> None:
        """Have so many bytes, or more."""
        if size > len(self._bytes):
            os.truncate(self._descriptor, size)
            self._bytes = torch.frombuffer(mmap.mmap(self._descriptor, size), dtype=torch.uint8)

    def begin(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Its rows come next."""
        self.name, self._rows, self._start = name, 0, self.end
        size = _n_bytes(dtype, shape)
        part = self._bytes[self.end : self.end + size].view(getattr(torch, dtype))
        self._tensor = part.view(shape or (1,))
        self.end += -(-size // ALIGNMENT) * ALIGNMENT

    def write(self, rows: slice, block: Tensor) -> None:
        """Rows of it."""
        self._tensor[rows].copy_(block)
        self._rows += rows.stop - rows.start
        if self._rows == len(self._tensor):
            self.whole.append((str(self.name), self._start))

    def close(self) -> None:
        os.close(self._descriptor)
        with suppress(FileNotFoundError):  # in no file system
            os.unlink(self.path)


def _n_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * getattr(torch, dtype).itemsize
