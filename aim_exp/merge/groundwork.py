"""What methods work out of whole models before they merge, and what they are given for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.console import Advance
from aim_exp.merge.stream import over_tensors
from aim_exp.tensors.inputs import TensorInputs

if TYPE_CHECKING:
    from aim_exp.aim.grams import Reader

T = TypeVar("T")


@dataclass(frozen=True)
class Material:
    """Base and the experts, with the same tensors, and where to work: see `over_tensors`."""

    base: Checkpoint
    experts: Sequence[Checkpoint]
    device: str | None = None
    threads: int | None = None
    advance: Advance = lambda elements: None
    statistics: Sequence[Path] = ()
    """What was measured of each expert, where the method reads that."""
    readers: Callable[[], Sequence[Reader]] = lambda: ()
    """The experts themselves, each with its texts."""

    def over_tensors(
        self, work: Callable[[TensorInputs], T], names: Iterable[str] | None = None
    ) -> Iterator[tuple[str, T]]:
        """What `work` gives for each tensor, or for those of `names`."""
        return over_tensors(
            (self.base, *self.experts),
            work,
            names=names,
            seed=0,
            threads=self.threads,
            device=self.device,
            advance=self.advance,
        )
