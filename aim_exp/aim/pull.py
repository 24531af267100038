"""Relaxations in a stream: how much of each tensor's delta stays, and what that changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from aim_exp.aim.dose import KindReport, RelaxationReport, solve_omega
from aim_exp.aim.relaxation import blend, named_scaling, relaxation
from aim_exp.aim.settings import AimSettings, named
from aim_exp.checkpoint.names import place_in_depth
from aim_exp.checkpoint.varying import is_like, setting_at
from aim_exp.errors import AimError
from aim_exp.tensors.inputs import SPARE, TensorInputs, all_finite, finite

if TYPE_CHECKING:
    from aim_exp.aim.saliency import Saliency

Delta = Callable[[slice], Tensor]
"""Rows to the merge's difference to base there, float32, good until the next call."""


class AnyRelaxation(Protocol):
    """What relaxes a merge, tensor by tensor."""

    @property
    def omega(self) -> float | None:
        """None where it plays no part."""
        ...

    def pull(self, inputs: TensorInputs, delta: Delta) -> Pull | None:
        """Of one tensor; None where it is left alone."""
        ...


class Pull:
    """The relaxation of one tensor, block by block, and what it changed.

    `factors` is r, float32, shaped to broadcast over the tensor; `moments` is E x_j^2 of base,
    shaped alike, None where it is not known.
    """

    def __init__(
        self, inputs: TensorInputs, factors: Tensor, moments: Tensor | None = None
    ) -> None:
        device = inputs.scratch.device
        self._inputs = inputs
        self._factors = factors.to(device)
        self._moments = None if moments is None else moments.to(device)
        self._squares = torch.zeros_like(self._factors, dtype=torch.float64)

    def delta(self, delta: Tensor, rows: slice) -> Tensor:
        """What is left of a difference to base, in place: exact at r = 0 and r = 1 as it is."""
        spare = self._inputs.scratch(SPARE, delta.shape)
        self._count(torch.mul(delta, delta, out=spare), rows)
        return delta.mul_(self._factors[self._channels(rows)])

    def merged(self, merged: Tensor, rows: slice) -> Tensor:
        """Merged rows relaxed, in scratch memory."""
        base = self._inputs.base_rows(rows)
        spare = self._inputs.scratch(SPARE, merged.shape)
        self._count(torch.sub(merged, base, out=spare).square_(), rows)
        return blend(base, merged, self._factors[self._channels(rows)], out=spare)

    def _channels(self, rows: slice) -> slice:
        """The channels that rows have a part in: their own along the first axis, else all."""
        return rows if self._factors.shape[0] > 1 else slice(None)

    def _count(self, squares: Tensor, rows: slice) -> None:
        channels = self._squares[self._channels(rows)]
        channels += squares.sum_to_size(channels.shape)

    def report(self) -> KindReport:
        """The counts and sums of the whole tensor."""
        report = KindReport.of(self._factors, self._squares, self._moments)
        report.relaxed_parameters = self._inputs.base.numel()
        return report


@dataclass(frozen=True)
class Relaxation:
    """AIM and its controls: r from what is known of base's inputs.

    `squares` is |d_j|^2 of the plain merge's delta for each tensor that is relaxed, float64
    [channels]: what `settings.needs_delta`. Where `experts` are given, the statistic is the mean
    over base and them. `depths` are the tensors', for an omega that varies.
    """

    saliency: Saliency
    omega: float
    settings: AimSettings
    seed: int
    squares: Mapping[str, Tensor] = field(default_factory=dict)
    experts: Sequence[Saliency] = ()
    depths: Mapping[str, float] = field(default_factory=dict)

    def pull(self, inputs: TensorInputs, delta: Delta) -> Pull | None:
        """By the factors of the tensor."""
        source = self._source(inputs.name)
        if source is None:
            return None
        view = [1] * inputs.base.ndim
        axis = self.saliency.axes[source]
        view[axis] = -1
        r = self.factors(inputs.name)
        assert len(r) == inputs.base.shape[axis], (
            f"{inputs.name}: saliency of {source} does not fit"
        )
        moments = self.saliency.moments.get(source)
        return Pull(inputs, r.view(view), None if moments is None else moments.view(view))

    def axis(self, name: str) -> int | None:
        """The input axis of a tensor that is relaxed; None for one that is left alone."""
        source = self._source(name)
        return None if source is None else self.saliency.axes[source]

    def factors(self, name: str) -> Tensor:
        """r of a tensor that is relaxed, float32 [channels]."""
        match self.settings.scaling:
            case "uniform_norm":
                share = self._report(name).dose.norm
            case "uniform_out":
                share = self._report(name).dose.outputs
            case "uniform_global":
                share = self._share
            case _:
                return self._aim(name)
        # Where a tensor's outputs do not change, AIM leaves it as it is.
        return torch.full_like(self._aim(name), 1.0 if share is None else share)

    def expected(self) -> RelaxationReport:
        """What relaxing will change, from `squares`: doses, but no counts of elements."""
        return self._totals(self.factors)

    def at_dose(self) -> Relaxation:
        """With the omega that leaves `settings.dose`. AimError where every omega leaves more."""
        assert self.settings.dose
        name, wanted = named(self.settings.dose)
        assert wanted is not None

        def dose(omega: float) -> float:
            left = replace(self, omega=omega).expected().total.dose
            value = {"mean_r": left.mean_r, "norm": left.norm, "out": left.outputs}[name]
            return 1.0 if value is None else value

        if (least := dose(0.0)) > wanted:
            raise AimError(
                f"aim.dose={self.settings.dose}: at omega 0, {least:.4g} is left; "
                f"ask for at least that, or set aim.normalise=p99 or mean"
            )
        return replace(self, omega=solve_omega(dose, wanted))

    @cached_property
    def _share(self) -> float | None:
        """Of the change of outputs that AIM leaves, over all tensors."""
        return self._totals(self._aim).total.dose.outputs

    def _totals(self, factors: Callable[[str], Tensor]) -> RelaxationReport:
        report = RelaxationReport(omega=self.omega)
        for name in self.squares:
            report.add(name, self._report(name, factors))
        return report

    def _report(self, name: str, factors: Callable[[str], Tensor] | None = None) -> KindReport:
        source, squares = self._source(name), self.squares[name]
        assert source
        moments = self.saliency.moments.get(source)
        report = KindReport.of((factors or self._aim)(name), squares, moments)
        report.relaxed_parameters = squares.numel()
        return report

    def _aim(self, name: str) -> Tensor:
        """AIM's own r; a control's where it matches by the mean."""
        source = self._source(name)
        assert source
        models = [each for each in (self.saliency, *self.experts) if source in each.channels]
        raw = torch.stack([m.statistic(source, self.settings.statistic) for m in models]).mean(0)
        if self.settings.column_norm and source in self.saliency.column_norms:
            raw = raw * self.saliency.column_norms[source]
        f = named_scaling(self.settings.scaling, self.seed, name)
        omega, varying = self.omega, self.settings.omega_by
        if varying is not None:
            omega = setting_at(varying, name, self.depths[name], "", rest=omega)
        return relaxation(raw, omega, f, normalise=self.settings.normalise)

    def _source(self, name: str) -> str | None:
        """What the statistics of a tensor's input are called; None where it is left alone."""
        if is_like(name, self.settings.exclude):
            return None
        if name in self.saliency.tied and self.settings.tied_head == "keep":
            return None
        return self.saliency.source(name)


@dataclass(frozen=True)
class LayerScaling:
    """LiNeS (Wang et al. 2024, arXiv 2410.17146): r = first + slope * l / (L - 1) in layer l.

    Tensors in no layer get `first`. `layers` is L, by what stands before the number in a name.
    """

    first: float
    slope: float
    layers: Mapping[str, int]
    exclude: Sequence[str]
    omega: None = None

    def pull(self, inputs: TensorInputs, delta: Delta) -> Pull | None:
        """By one factor for the tensor."""
        if is_like(inputs.name, self.exclude):
            return None
        shape = [1] * (inputs.base.ndim - 1) + [inputs.base.shape[-1]]
        return Pull(inputs, torch.full(shape, self.factor(inputs.name)))

    def factor(self, name: str) -> float:
        """r of a tensor."""
        stack, layer = place_in_depth(name)
        if layer is None:
            return self.first
        return self.first + self.slope * layer / max(1, self.layers[stack] - 1)


@dataclass(frozen=True)
class SingularValues:
    """Singular value calibration (arXiv 2602.05536): directions that experts share count once.

    For D = U S V^T and each direction u, gamma = T / sum_i max(floor, s_i), where s_i is the
    projection <u^T D, u^T d_i> / |u^T d_i|^2 of D on expert i's delta; S becomes gamma S. Of
    the weights with two axes in a layer; the others stay as they are.
    """

    floor: float
    exclude: Sequence[str]
    omega: None = None

    def pull(self, inputs: TensorInputs, delta: Delta) -> Pull | None:
        """By the whole matrix."""
        matrix = inputs.base.ndim == 2 and place_in_depth(inputs.name)[1] is not None
        if not matrix or is_like(inputs.name, self.exclude):
            return None
        return _Replacement(inputs, calibrated(inputs, _whole(inputs, delta), self.floor))


def calibrated(inputs: TensorInputs, merged: Tensor, floor: float) -> Tensor:
    """The delta `merged` [out, in] with its singular values calibrated, float32."""
    if not all_finite(merged):
        inputs.check()  # whose fault it is
        finite(merged, "merged model", inputs.name)
    u, s, v = torch.linalg.svd(merged, full_matrices=False)
    count = len(inputs.experts)
    total = torch.zeros_like(s)
    along = s[:, None] * v
    for expert in range(count):
        own = u.T @ _whole(inputs, lambda rows, i=expert: inputs.delta(i, rows, SPARE))
        squares = own.square().sum(1)
        share = torch.where(squares > 0, (along * own).sum(1) / squares, 0.0)
        total += share.clamp(min=floor)
    return (u * (count / total)) @ along


def _whole(inputs: TensorInputs, rows_of: Delta) -> Tensor:
    """All rows together, in new memory."""
    return torch.cat([rows_of(rows).clone() for rows in inputs.blocks()])


class _Replacement(Pull):
    """A relaxation that is known as a whole: another delta in the place of the merge's."""

    def __init__(self, inputs: TensorInputs, relaxed: Tensor) -> None:
        super().__init__(inputs, torch.ones(1, 1))
        self._relaxed = relaxed

    def delta(self, delta: Tensor, rows: slice) -> Tensor:
        """The rows of the other delta."""
        return super().delta(delta, rows).copy_(self._relaxed[rows])

    def merged(self, merged: Tensor, rows: slice) -> Tensor:
        """Base and the other delta."""
        super().merged(merged, rows)
        base = self._inputs.base_rows(rows)
        return torch.add(base, self._relaxed[rows], out=self._inputs.scratch(SPARE, base.shape))

    def report(self) -> KindReport:
        """The norms; there are no channels."""
        return KindReport(
            relaxed_parameters=self._inputs.base.numel(),
            norm_before=self._squares.sum().item(),
            norm_after=self._relaxed.double().square().sum().item(),
        )
