"""How the deltas to merge lie to each other and to base: known before anything is scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aim_exp.aim.dose import ALL
from aim_exp.checkpoint.names import kind_of
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.console import Advance
from aim_exp.merge.stream import over_tensors
from aim_exp.tensors.inputs import TensorInputs


@dataclass
class DeltaTable:
    """The deltas of all experts by kind of module, from sums that are kept."""

    experts: Sequence[str]
    sums: dict[str, Tensor] = field(default_factory=dict)
    """By kind, float64 [3, T + 1, T + 1] over base and the deltas, base first: products, elements
    of the same sign, and elements that both have."""

    def summary(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Per kind and `all`; None where what one would divide by is zero.

        `relative` is ||d|| / ||b|| by expert; `cosine` that of two deltas, a pair being called
        `a b`; `sign_agreement` the share of the elements that both change in the same direction.
        """
        total = sum(self.sums.values())
        assert isinstance(total, Tensor)
        of_kinds = {ALL: total, **dict(sorted(self.sums.items()))}
        return {kind: self._of(*sums.tolist()) for kind, sums in of_kinds.items()}

    def _of(self, products: Any, alike: Any, both: Any) -> dict[str, dict[str, float | None]]:
        norms = [products[i][i] ** 0.5 for i in range(len(products))]
        numbered = list(enumerate(self.experts, 1))
        pairs = {f"{a} {b}": (i, j) for (i, a), (j, b) in combinations(numbered, 2)}
        return {
            "relative": {name: _share(norms[i], norms[0]) for i, name in numbered},
            "cosine": {
                pair: _share(products[i][j], norms[i] * norms[j]) for pair, (i, j) in pairs.items()
            },
            "sign_agreement": {
                pair: _share(alike[i][j], both[i][j]) for pair, (i, j) in pairs.items()
            },
        }

    def save(self, path: Path) -> None:
        """The sums, as JSON: the experts' names are the reader's."""
        path.write_text(json.dumps({kind: sums.tolist() for kind, sums in self.sums.items()}))

    @staticmethod
    def load(path: Path, experts: Sequence[str]) -> DeltaTable:
        """Read what `save` wrote."""
        content = json.loads(path.read_text())
        sums = {kind: torch.tensor(rows, dtype=torch.float64) for kind, rows in content.items()}
        return DeltaTable(experts, sums)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def delta_table(
    models: Sequence[Checkpoint],
    *,
    threads: int | None = None,
    device: str | None = None,
    advance: Advance = lambda elements: None,
) -> DeltaTable:
    """Of base, the first of `models`, and the experts, tensor by tensor; see `over_tensors`."""
    table = DeltaTable([model.label for model in models[1:]])
    for name, sums in over_tensors(
        models, _sums, seed=0, threads=threads, device=device, advance=advance
    ):
        if sums is not None:
            kind = kind_of(name)
            table.sums[kind] = table.sums[kind] + sums if kind in table.sums else sums
    return table


def _sums(inputs: TensorInputs) -> Tensor | None:
    if not inputs.base.is_floating_point():
        return None
    count = len(inputs.experts)
    sums = torch.zeros(3, count + 1, count + 1, dtype=torch.float64, device=inputs.scratch.device)
    for rows in inputs.blocks():
        base = inputs.base_rows(rows)
        deltas = [inputs.delta(i, rows, f"delta {i}") for i in range(count)]
        x = torch.stack([base.reshape(-1), *(d.view(-1) for d in deltas)]).double()
        sums[0] += x @ x.T
        signs = x.sign_()
        difference = signs @ signs.T
        both = signs.abs_() @ signs.T
        sums[1] += (difference + both) / 2
        sums[2] += both
    return sums.cpu()
