"""From the settings of a relaxation to the relaxation: what it must know of the merge first."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from aim_exp.aim.pull import AnyRelaxation, LayerScaling, Relaxation, SingularValues
from aim_exp.aim.saliency import Saliency
from aim_exp.aim.settings import AimSettings, named
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.varying import depths, layer_counts
from aim_exp.console import Advance
from aim_exp.merge.method import MergeMethod
from aim_exp.merge.stream import delta_of, over_tensors
from aim_exp.tensors.blocks import add_by_channel
from aim_exp.tensors.inputs import SPARE, TensorInputs

Models = Sequence[Checkpoint]
"""Base and what is merged."""


def relaxation_for(
    settings: AimSettings,
    omega: float,
    saliency: Sequence[Saliency],
    models: Models,
    method: MergeMethod,
    *,
    seed: int,
    threads: int | None = None,
    device: str | None = None,
    advance: Advance = lambda elements: None,
) -> AnyRelaxation:
    """What relaxes the merge of `models` by `method`.

    `saliency` is base's, then that of the experts where theirs counts; none where `settings`
    read no texts. Where the merge's delta must be known first, the models are gone through once
    more, `advance` being told as by a merge. Raises AimError for a dose that no omega leaves.
    """
    survey = partial(
        over_tensors, models, seed=seed, threads=threads, device=device, advance=advance
    )
    name, value = named(settings.scaling)
    if name == "svc":
        return SingularValues(1.0 if value is None else value, settings.exclude)
    if name == "lines":
        sums = [pair for _, pair in survey(partial(_magnitudes, method=method)) if pair]
        first, slope = _ends(sums, len(models) - 1, value)
        return LayerScaling(first, slope, layer_counts(models[0].tensors), settings.exclude)
    base, *experts = saliency
    depth_of = depths(models[0].tensors)
    relaxation = Relaxation(base, omega, settings, seed, experts=experts, depths=depth_of)
    if not settings.needs_delta:
        return relaxation
    columns = survey(partial(_column_squares, method=method, relaxation=relaxation))
    squares = {name: each for name, each in columns if each is not None}
    relaxation = replace(relaxation, squares=squares)
    return relaxation.at_dose() if settings.dose else relaxation


def _column_squares(
    inputs: TensorInputs, method: MergeMethod, relaxation: Relaxation
) -> Tensor | None:
    """|d_j|^2 over the input channels of a tensor that is relaxed, float64 on the processor."""
    axis = relaxation.axis(inputs.name)
    if axis is None:
        return None
    device = inputs.scratch.device
    squares = torch.zeros(inputs.base.shape[axis], dtype=torch.float64, device=device)
    delta = delta_of(inputs, method)
    for rows in inputs.blocks():
        add_by_channel(squares, delta(rows).double().square_(), rows, axis)
    return squares.cpu()


def _magnitudes(inputs: TensorInputs, method: MergeMethod) -> tuple[float, float] | None:
    """The sums of |sum_i d_i| and of |D| over a tensor."""
    if not inputs.base.is_floating_point():
        return None
    delta = delta_of(inputs, method)
    plain = merged = 0.0
    for rows in inputs.blocks():
        merged += delta(rows).abs().sum(dtype=torch.float64).item()
        total = inputs.delta(0, rows, "sum of deltas")
        for expert in range(1, len(inputs.experts)):
            total.add_(inputs.delta(expert, rows, SPARE))
        plain += total.abs_().sum(dtype=torch.float64).item()
    return plain, merged


def _ends(
    sums: Sequence[tuple[float, float]], count: int, value: float | None
) -> tuple[float, float]:
    """r in the first layer, and what the last one has more.

    Of a merge the first layer keeps ||sum d_i||_1 / (T ||D||_1), as LiNeS has it, and `value` is
    the slope; by default the last layer keeps all. Of one model `value` is the first layer's r.
    """
    if count == 1 and value is not None:
        return value, 1 - value
    plain, merged = (sum(column) for column in zip(*sums, strict=True))
    first = plain / (count * merged) if merged else 1.0
    return first, 1 - first if value is None else value
