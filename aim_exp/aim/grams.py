"""E x x^T of the inputs of linear modules, layer by layer: never those of a whole model at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aim_exp.aim.measure import Meter, Meters
from aim_exp.checkpoint.layerwise import LayerwiseModel
from aim_exp.checkpoint.modules import holds_experts

Grams = Mapping[str, tuple[int, list[Tensor]]]
"""By parameter, its input axis and E x x^T, float64 [in, in], one for each expert it holds."""


class _GramMeter(Meter):
    """Running sums over tokens of x x^T, float64."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._tokens = 0

    def add(self, x: Tensor) -> None:
        rows = x.detach().flatten(0, -2).double()
        self._sum = self._sum + rows.T @ rows
        self._tokens += len(rows)

    def value(self) -> Tensor:
        assert isinstance(self._sum, Tensor)
        return self._sum / max(1, self._tokens)


@dataclass(frozen=True)
class Reader:
    """A model that reads `blocks`, token ids [n, length], the first `skip` positions uncounted."""

    model: LayerwiseModel
    blocks: Tensor
    skip: int

    def grams(self, advance: Callable[[int], None] = lambda blocks: None) -> Iterator[Grams]:
        """Of each layer in turn; `advance(1)` after each block in each."""
        meters = [Meters()]

        def watch(modules: Iterable[nn.Module]) -> AbstractContextManager[None]:
            weights = ((module, getattr(module, "weight", None)) for module in modules)
            linear = [m for m, w in weights if getattr(w, "ndim", 0) == 2 or holds_experts(m)]
            meters.append(Meters(self.blocks.shape[1], self.skip, _GramMeter))
            return meters[-1].watch(linear, self.model.model)

        with torch.no_grad():
            for _ in self.model.through_layers(self.blocks, [], watch, advance):
                yield meters.pop().measured()
