"""Tensors on another device, uploaded while those before them are worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

STAGING_BYTES = 1 << 25
"""Size of each of the two buffers between the files and the device."""

Fetch = Callable[[str], Sequence[Tensor]]
"""A name to the tensors that have it, one per model, in memory of the host."""


class Uploads:
    """What `load` gives for each of `names`, on `device`, to be asked for in this order.

    A thread copies from the files to one of two pinned buffers while the other is on its way
    to the device, on a stream beside that of the arithmetic, one name ahead: no more than two
    names' tensors are there at a time. A context manager. On the CPU, where streams are
    nominal, the copies are the same.
    """

    def __init__(self, load: Fetch, names: Sequence[str], device: torch.device) -> None:
        self._load = load
        self._names = iter(names)
        self._device = device
        self._runtime: Any = torch.get_device_module(device)
        self._stream = self._runtime.Stream(device)
        self._buffers = cycle([_Buffer(device), _Buffer(device)])
        self._thread = ThreadPoolExecutor(1)
        self._coming: Iterator[tuple[Sequence[Tensor], Future[Any]]] = map(self._start, self._names)
        self._next = next(self._coming, None)

    def __enter__(self) -> Uploads:
        """Nothing: the first upload is under way."""
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the copies: their memory must outlive them."""
        self._thread.shutdown(cancel_futures=True)
        self._runtime.synchronize(self._device)

    def __call__(self, name: str) -> Sequence[Tensor]:
        """The next tensors, which are those of `name`."""
        assert self._next
        tensors, uploading = self._next
        arrived = uploading.result()
        self._next = next(self._coming, None)
        self._runtime.current_stream(self._device).wait_event(arrived)
        return tensors

    def _start(self, name: str) -> tuple[Sequence[Tensor], Future[Any]]:
        sources = self._load(name)
        # The memory is of the stream of the arithmetic, which may have used it before.
        targets = [torch.empty_like(source, device=self._device) for source in sources]
        self._stream.wait_stream(self._runtime.current_stream(self._device))
        return targets, self._thread.submit(self._upload, sources, targets)

    def _upload(self, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> Any:
        """Send all; the event of their arrival."""
        with self._runtime.stream(self._stream):
            for source, target in zip(sources, targets, strict=True):
                for piece, place in zip(_pieces(source), _pieces(target), strict=True):
                    next(self._buffers).send(piece, place)
            arrived = self._runtime.Event()
            arrived.record()
        return arrived


class _Buffer:
    """Host memory that a device can read by itself, while the host goes on."""

    def __init__(self, device: torch.device) -> None:
        pinned = device.type != "cpu"
        self._memory = torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=pinned)
        self._sent: Any = torch.get_device_module(device).Event()

    def send(self, piece: Tensor, place: Tensor) -> None:
        """Copy bytes to the device, on the current stream; returns before they are there."""
        self._sent.synchronize()
        held = self._memory[: len(piece)].copy_(piece)
        place.copy_(held, non_blocking=True)
        self._sent.record()


def _pieces(tensor: Tensor) -> Sequence[Tensor]:
    return tensor.reshape(-1).view(torch.uint8).split(STAGING_BYTES)
