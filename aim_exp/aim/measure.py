"""How strongly base uses each input channel: one forward pass over the calibration blocks."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.layerwise import LayerwiseModel
from aim_exp.checkpoint.modules import (
    DOWN,
    GATE_UP,
    holds_experts,
    module_name,
    routed_inputs,
    tied_head,
)
from aim_exp.errors import NonFiniteError

RECENT_INPUTS = 4
"""How many inputs back a shared one is looked for: the readers of one input follow closely."""
CACHED_ELEMENTS = 1 << 18
"""How much of an input a CPU takes at once: a float32 copy of it stays in the cache."""


class Meter:
    """Running sums over tokens of |x| and x squared: float32 within pieces, float64 across."""

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self._count = 0

    def add(self, x: Tensor) -> None:
        """Count an input, [..., channels]."""
        rows = x.detach().flatten(0, -2)
        # Elsewhere than on a CPU it is the number of calls that costs.
        at_once = CACHED_ELEMENTS // rows.shape[-1] if rows.device.type == "cpu" else len(rows)
        for piece in rows.split(max(1, at_once)):
            magnitude = piece.abs().float()
            mean_abs = magnitude.sum(0)  # before its memory takes the squares
            self._total += torch.stack([mean_abs, magnitude.square_().sum(0)]).double()
        self._count += len(rows)

    def value(self) -> Tensor:
        """The means, float32 [2, channels], on the device of what was measured."""
        assert isinstance(self._total, Tensor)
        return (self._total / max(1, self._count)).float()


class _ExpertMeters:
    """A meter for each expert of a layer; zeros for those that get no token."""

    def __init__(self, weights: Tensor, meter: type[Meter]) -> None:
        self.each = [meter() for _ in weights]
        for one in self.each:
            one.add(weights.new_zeros(0, weights.shape[-1]))

    def add(self, expert: int, x: Tensor) -> None:
        self.each[expert].add(x)

    def value(self) -> Tensor:
        return torch.stack([meter.value() for meter in self.each], dim=1)


def measure(
    model: Any, blocks: Tensor, advance: Callable[[int], None], *, skip: int = 0
) -> Saliency:
    """One pass of `model` (a causal language model) over `blocks`, token ids [n, length].

    The first `skip` positions of each block are read but not counted: wherever a text begins,
    the first tokens carry the massive activations.

    Every Linear, Conv1D, router and norm that the text reaches is measured once per input:
    modules that read the same tensor share a statistic. Of a layer's experts each is measured
    on the tokens that are routed to it. The output head's input is the decoder's last hidden
    state, so no logits are made. `advance(1)` after each block. Raises NonFiniteError for
    activations that are NaN or infinite.
    """
    meters = Meters(blocks.shape[1], skip)
    head = model.get_output_embeddings()
    decoder = model.base_model
    with torch.no_grad(), meters.watch(decoder.modules(), model):
        for block in blocks:
            output = decoder(input_ids=block.unsqueeze(0).to(model.device), use_cache=False)
            if head is not None:
                meters.add(f"{module_name(model, head)}.weight", 1, output.last_hidden_state)
            advance(1)
    return meters.saliency(blocks[:, skip:].numel(), tied_head(model))


def measure_layerwise(
    layerwise: LayerwiseModel, blocks: Tensor, advance: Callable[[int], None], *, skip: int = 0
) -> Saliency:
    """What `measure` gives, of a model that is read layer by layer; `advance(1)` for each block
    in each layer.
    """
    meters = Meters(blocks.shape[1], skip)
    model = layerwise.model
    head = model.get_output_embeddings()

    def watch(modules: Iterable[nn.Module]) -> AbstractContextManager[None]:
        return meters.watch(modules, model)

    with torch.no_grad():
        for hidden in layerwise.last_hidden_states(blocks, watch, advance):
            if head is not None:
                meters.add(f"{module_name(model, head)}.weight", 1, hidden)
    return meters.saliency(blocks[:, skip:].numel(), layerwise.tied)


@dataclass(frozen=True)
class _Measured:
    """An input and its meter. The reference is weak: activations live no longer than they would."""

    tensor: ReferenceType[Tensor]
    version: int
    meter: Meter


class Meters:
    """The meters of a pass, by the name of the parameter whose input they measure.

    Of blocks of `length` tokens, the first `skip` positions are left out. `meter` is their kind.
    """

    def __init__(self, length: int = 0, skip: int = 0, meter: type[Meter] = Meter) -> None:
        self._kind = meter
        self._length = length
        self._skip = skip
        self._meters: dict[str, Meter | _ExpertMeters] = {}
        self._axes: dict[str, int] = {}

    def add(self, name: str, axis: int, x: Tensor) -> Meter:
        """Measure an input of `name`, a weight whose input axis is `axis`."""
        meter = self._meters.setdefault(name, self._kind())
        assert isinstance(meter, Meter)
        meter.add(self._counted(x))
        self._axes[name] = axis
        return meter

    def saliency(self, tokens: int, tied: Mapping[str, str]) -> Saliency:
        """What was measured. Raises NonFiniteError where it is NaN or infinite."""
        meters = list(dict.fromkeys(self._meters.values()))
        own = [meter.value() for meter in meters]
        # Copied together: to copy each by itself is to wait for the device each time.
        together = torch.cat([value.flatten() for value in own]).cpu()
        parts = together.split([value.numel() for value in own])
        measured = {m: part.view_as(v) for m, part, v in zip(meters, parts, own, strict=True)}
        for name, meter in self._meters.items():
            if not torch.isfinite(measured[meter]).all():
                raise NonFiniteError(f"base: the input of {name} is NaN or infinite on this text")
        pairs = {meter: tuple(values) for meter, values in measured.items()}
        channels, moments = (
            {name: pairs[meter][i] for name, meter in self._meters.items()} for i in (0, 1)
        )
        return Saliency(channels, self._axes, tokens, tied, moments=moments)

    def measured(self) -> dict[str, tuple[int, list[Tensor]]]:
        """By parameter, its input axis and what was measured, one for each expert that it holds."""
        return {
            name: (
                self._axes[name],
                [each.value() for each in getattr(meter, "each", [meter])],
            )
            for name, meter in self._meters.items()
        }

    def _counted(self, x: Tensor) -> Tensor:
        """Without the positions left out, which run along the first axis of a block's length."""
        if not self._skip:
            return x
        axis = x.shape[:-1].index(self._length)
        return x.narrow(axis, self._skip, self._length - self._skip)

    @contextmanager
    def watch(self, modules: Iterable[nn.Module], model: nn.Module) -> Iterator[None]:
        """Measure those of `modules`, parts of `model`, that have a weight, while it lasts."""
        recent: deque[_Measured] = deque(maxlen=RECENT_INPUTS)
        names = {id(module): name for name, module in model.named_modules()}
        handles = []
        for module in modules:
            name = names[id(module)]
            if holds_experts(module):
                handles.append(self._watch_experts(module, name))
                continue
            weight = getattr(module, "weight", None)
            if isinstance(module, nn.Embedding) or not isinstance(weight, Tensor):
                continue
            if weight.ndim <= 2:
                axis = 0 if weight.ndim == 1 or isinstance(module, Conv1D) else 1
                width = weight.shape[axis]
                handles.append(self._watch(module, f"{name}.weight", axis, width, recent))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _watch(
        self,
        module: nn.Module,
        name: str,
        axis: int,
        width: int,
        recent: deque[_Measured],
    ) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
            if x.shape[-1] != width:
                return
            for earlier in recent:
                if earlier.tensor() is x and earlier.version == x._version:
                    self._meters[name], self._axes[name] = earlier.meter, axis
                    return
            recent.append(_Measured(ref(x), x._version, self.add(name, axis, x)))

        return module.register_forward_pre_hook(hook, with_kwargs=True)

    def _watch_experts(self, experts: nn.Module, name: str) -> Any:
        gate_up, down = (
            self._meters.setdefault(
                f"{name}.{part}", _ExpertMeters(getattr(experts, part), self._kind)
            )
            for part in (GATE_UP, DOWN)
        )
        assert isinstance(gate_up, _ExpertMeters)
        assert isinstance(down, _ExpertMeters)
        self._axes |= {f"{name}.{GATE_UP}": 1, f"{name}.{DOWN}": 1}

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tokens = (self._counted(value) for value in (*args, *kwargs.values()))
            for expert, x, inner in routed_inputs(module, *tokens):
                gate_up.add(expert, x)
                down.add(expert, inner)

        return experts.register_forward_pre_hook(hook, with_kwargs=True)
