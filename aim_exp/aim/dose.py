"""How much of a merge's change a relaxation leaves: three doses, by kind of module and layer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from aim_exp.checkpoint.names import kind_of, layer_of

RELAXED_BELOW = 0.9
"""A channel counts as pulled back noticeably when less than this share of its delta stays."""
ALL = "all"


@dataclass(frozen=True)
class Dose:
    """The share of the plain merge's change that is left, over the tensors that are relaxed.

    1 throughout where nothing is relaxed; None where a measure is not defined: without
    channels (svc) or without base's activations (lines, svc), or where the delta is zero.
    """

    mean_r: float | None
    """The mean of r over channels."""
    norm: float | None
    """||delta after|| / ||delta before||."""
    outputs: float | None
    """The same of the change of outputs, sqrt(sum_j r_j^2 q_j |d_j|^2 / sum_j q_j |d_j|^2), with
    d_j column j of the delta and q_j = E x_j^2 of base."""


@dataclass
class KindReport:
    """What it did to one kind of module (`q_proj`, `lm_head`, ...), or layer: counts and sums."""

    parameters: int = 0
    relaxed_parameters: int = 0
    differing: int = 0
    """Elements that are not the plain merge's, in the dtype of the output."""
    channels: int = 0
    sum_r: float = 0.0
    channels_below: int = 0
    norm_before: float = 0.0
    norm_after: float = 0.0
    outputs_before: float = 0.0
    outputs_after: float = 0.0

    @staticmethod
    def of(r: Tensor, squares: Tensor, moments: Tensor | None) -> KindReport:
        """A tensor with |d_j|^2 in `squares`; all are [channels], or shaped alike."""
        kept = squares * r.double().square()
        weights = squares.new_zeros(()) if moments is None else moments.double()
        return KindReport(
            channels=r.numel(),
            sum_r=r.sum(dtype=kept.dtype).item(),
            channels_below=int((r < RELAXED_BELOW).sum()),
            norm_before=squares.sum().item(),
            norm_after=kept.sum().item(),
            outputs_before=(squares * weights).sum().item(),
            outputs_after=(kept * weights).sum().item(),
        )

    @property
    def dose(self) -> Dose:
        """Of all tensors counted."""
        if not self.relaxed_parameters:
            return Dose(1.0, 1.0, 1.0)
        return Dose(
            mean_r=self.sum_r / self.channels if self.channels else None,
            norm=_root_share(self.norm_after, self.norm_before),
            outputs=_root_share(self.outputs_after, self.outputs_before),
        )

    def summary(self) -> dict[str, Any]:
        """The numbers for the record; what is not defined is left out."""
        numbers: dict[str, float | None] = {
            "parameters": self.parameters,
            "relaxed_parameters": self.relaxed_parameters,
            **asdict(self.dose),
        }
        if self.channels:
            numbers["share_below"] = self.channels_below / self.channels
        if self.relaxed_parameters:
            numbers["delta"] = math.sqrt(self.norm_before)
            numbers["differing"] = self.differing / self.relaxed_parameters
        return {name: value for name, value in numbers.items() if value is not None}

    def add(self, other: KindReport) -> None:
        """Add another report's counts and sums."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def _root_share(after: float, before: float) -> float | None:
    return math.sqrt(after / before) if before else None


@dataclass
class RelaxationReport:
    """A `KindReport` for each kind of module and each layer, and the omega that led to it."""

    kinds: dict[str, KindReport] = field(default_factory=dict)
    layers: dict[int, KindReport] = field(default_factory=dict)
    omega: float | None = None

    def add(self, name: str, tensor: KindReport) -> None:
        """Count what was done to the tensor `name`; in no layer are embeddings, heads and norms."""
        self.kinds.setdefault(kind_of(name), KindReport()).add(tensor)
        if (layer := layer_of(name)) is not None:
            self.layers.setdefault(layer, KindReport()).add(tensor)

    @property
    def total(self) -> KindReport:
        """Over all kinds."""
        total = KindReport()
        for kind in self.kinds.values():
            total.add(kind)
        return total

    @property
    def doses(self) -> dict[str, Dose]:
        """Of `all` and each kind."""
        return {name: report.dose for name, report in self._named()}

    def summary(self) -> dict[str, dict[str, Any]]:
        """Per kind and `all`, plain numbers."""
        return {name: report.summary() for name, report in self._named()}

    def _named(self) -> list[tuple[str, KindReport]]:
        return [(ALL, self.total), *sorted(self.kinds.items())]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> RelaxationReport:
        """Read what `save` wrote."""
        content = json.loads(path.read_text())
        kinds = {name: KindReport(**kind) for name, kind in content["kinds"].items()}
        layers = {int(number): KindReport(**layer) for number, layer in content["layers"].items()}
        return RelaxationReport(kinds, layers, content["omega"])


def solve_omega(dose: Callable[[float], float], wanted: float) -> float:
    """The omega in [0, 1] at which `dose`, which grows with it, is `wanted`, by bisection.

    0 where every omega leaves more than `wanted`.
    """
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high) and high - low > 1e-12:
        if dose(middle) < wanted:
            low = middle
        else:
            high = middle
    return high if high > 1e-12 else 0.0
