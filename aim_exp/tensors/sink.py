"""Where streamed weights go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Sink(Protocol):
    """Where weights go: a checkpoint writer, a live model, or nowhere."""

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Take rows of a tensor, in the dtype it will have."""
        ...


class Discard:
    """A sink for weights that only have to be gone through."""

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Nothing."""


Load = Callable[[Sink], None]
"""Hands every tensor of a model to a sink."""
