"""Fisher-weighted averaging: each weight by how much its expert's outputs depend on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aim_exp.merge.matrices import DirectedMethod
from aim_exp.tensors.inputs import TensorInputs

if TYPE_CHECKING:
    from aim_exp.merge.groundwork import Material
    from aim_exp.tensors.sink import Sink

FISHER_FILE = "fisher.safetensors"


@dataclass(frozen=True, kw_only=True)
class Fisher(DirectedMethod):
    """`D = sum(w_i F_i d_i) / sum(w_i F_i)`, elementwise (Matena and Raffel 2022, 2111.09832).

    F_i is the diagonal of expert i's Fisher information on its own texts, measured, or given:
    `files` {expert: safetensors file with base's names}. Where all F_i are zero, and in tensors
    without them, it is the mean of the d_i.
    """

    reads: ClassVar[str | None] = "fisher"
    files: Any

    def problems(self, experts: Sequence[str], merged: Sequence[str]) -> list[str]:
        """Also files that are not there."""
        problems = super().problems(experts, merged)
        if not isinstance(self.files, Mapping | None):
            return [*problems, f"method.files={self.files}: must be a table {{expert: FILE}}"]
        given = self.given
        for name in merged if given else ():
            if name not in given:
                problems.append(f"method.files: none of {name}; give one of each expert, or null")
            elif not given[name].is_file():
                problems.append(f"method.files.{name}={given[name]}: no such file")
        return problems

    @property
    def given(self) -> Mapping[str, Path]:
        """The files that are given, by expert."""
        files = self.files if isinstance(self.files, Mapping) else {}
        return {name: Path(path) for name, path in files.items()}

    def spec(self, merged: Sequence[str]) -> dict[str, Any]:
        """What the files hold counts, not where they are."""
        return {key: value for key, value in super().spec(merged).items() if key != "files"}

    def write(self, material: Material, sink: Sink) -> None:
        """Elementwise."""
        import torch
        from safetensors import safe_open

        labels = [expert.label for expert in material.experts]
        files = [self.given[name] for name in labels] if self.given else []
        files = files or [folder / FISHER_FILE for folder in material.statistics]
        measured = [safe_open(file, "pt") for file in files]
        named = set.intersection(*(set(content.keys()) for content in measured))

        def work(inputs: TensorInputs) -> None:
            if not inputs.base.is_floating_point():
                return
            inputs.check()
            known = measured if inputs.name in named else ()
            values = [content.get_tensor(inputs.name) for content in known]
            if any(value.shape != inputs.base.shape for value in values):
                values = []  # rows of other tokens than each expert's own
            for rows in inputs.blocks():
                deltas = torch.stack(
                    [inputs.delta(i, rows, f"delta {i}") for i in range(len(labels))]
                ).double()
                shares = torch.ones_like(deltas)
                for i, weight in enumerate(self.weights_in(inputs)):
                    shares[i] = weight * (values[i][rows].to(deltas) if values else 1)
                total = shares.sum(0)
                weighted = (shares * deltas).sum(0) / total
                merged = torch.where(total == 0, deltas.mean(0), weighted)
                sink.write(inputs.name, rows, merged.float())

        for _ in material.over_tensors(work):
            pass
