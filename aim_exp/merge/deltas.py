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


@dataclass(frozen=True)
class Pair:
    """Two experts' deltas; None where one of them is zero."""

    cosine: float | None
    sign_agreement: float | None
    """Of the elements that both change, the share changed in the same direction."""


@dataclass(frozen=True)
class Deltas:
    """The deltas of all experts, of one kind of module or of `all`."""

    relative: dict[str, float | None]
    """By expert, ||d|| / ||b||; None where base is zero."""
    pairs: dict[tuple[str, str], Pair]


@dataclass
class DeltaTable:
    """`Deltas` by kind of module, from sums that are kept."""

    experts: Sequence[str]
    sums: dict[str, Tensor] = field(default_factory=dict)
    """By kind, float64 [3, T + 1, T + 1] over base and the deltas, base first: products, elements
    of the same sign, and elements that both have."""

    def of(self, kind: str) -> Deltas:
        """Of one kind, or of `all`."""
        sums = sum(self.sums.values()) if kind == ALL else self.sums[kind]
        assert isinstance(sums, Tensor)
        products, alike, both = sums.tolist()
        norms = [products[i][i] ** 0.5 for i in range(len(products))]
        numbered = list(enumerate(self.experts, 1))
        return Deltas(
            relative={name: norms[i] / norms[0] if norms[0] else None for i, name in numbered},
            pairs={
                (a, b): Pair(
                    cosine=products[i][j] / (norms[i] * norms[j]) if norms[i] * norms[j] else None,
                    sign_agreement=alike[i][j] / both[i][j] if both[i][j] else None,
                )
                for (i, a), (j, b) in combinations(numbered, 2)
            },
        )

    def summary(self) -> dict[str, dict[str, Any]]:
        """Per kind and `all`, plain numbers; a pair is called `a b`."""
        summary: dict[str, dict[str, Any]] = {}
        for kind in (ALL, *sorted(self.sums)):
            deltas = self.of(kind)
            pairs = {" ".join(names): pair for names, pair in deltas.pairs.items()}
            summary[kind] = {
                "relative": deltas.relative,
                "cosine": {name: pair.cosine for name, pair in pairs.items()},
                "sign_agreement": {name: pair.sign_agreement for name, pair in pairs.items()},
            }
        return summary

    def save(self, path: Path) -> None:
        """The sums, as JSON: the experts' names are the reader's."""
        path.write_text(json.dumps({kind: sums.tolist() for kind, sums in self.sums.items()}))

    @staticmethod
    def load(path: Path, experts: Sequence[str]) -> DeltaTable:
        """Read what `save` wrote."""
        content = json.loads(path.read_text())
        sums = {kind: torch.tensor(rows, dtype=torch.float64) for kind, rows in content.items()}
        return DeltaTable(experts, sums)


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
