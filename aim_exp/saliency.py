"""How strongly base uses each input channel: one forward pass over the calibration blocks."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from aim_exp.errors import NonFiniteError

FILE_NAME = "saliency.safetensors"
RECENT_INPUTS = 4
"""How many inputs back a shared one is looked for: the readers of one input follow closely."""


@dataclass(frozen=True)
class Saliency:
    """The raw statistic of each module's input, by the name of its weight.

    `channels[name]` is float32 [channels], `axes[name]` the weight's input axis; `tokens`
    is how many tokens were averaged.
    """

    channels: Mapping[str, Tensor]
    axes: Mapping[str, int]
    tokens: int

    def save(self, folder: Path) -> None:
        """Write one safetensors file, axes and tokens in its metadata."""
        metadata = {"axes": json.dumps(self.axes), "tokens": str(self.tokens)}
        # Shared inputs are one tensor here; the format wants copies.
        content = {name: channels.clone() for name, channels in self.channels.items()}
        save_file(content, folder / FILE_NAME, metadata)

    @staticmethod
    def load(folder: Path) -> Saliency:
        """Read what `save` wrote."""
        with safe_open(folder / FILE_NAME, framework="pt") as content:
            metadata = content.metadata()
            channels = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        return Saliency(channels, json.loads(metadata["axes"]), int(metadata["tokens"]))


class _Meter:
    """A running sum over tokens of |x| or x squared, in float64."""

    def __init__(self, statistic: str) -> None:
        self._statistic = statistic
        self._total: Tensor | float = 0.0
        self._count = 0

    def add(self, x: Tensor) -> None:
        rows = x.detach().flatten(0, -2).float()
        magnitude = rows.square() if self._statistic == "rms" else rows.abs()
        self._total = self._total + magnitude.sum(0).double()
        self._count += len(rows)

    def value(self) -> Tensor:
        assert isinstance(self._total, Tensor)
        mean = self._total / self._count
        return (mean.sqrt() if self._statistic == "rms" else mean).float().cpu()


def measure(model: Any, blocks: Tensor, statistic: str, advance: Callable[[int], None]) -> Saliency:
    """One pass of `model` (a causal language model) over `blocks`, token ids [n, length].

    Every Linear, Conv1D and norm that the text reaches is measured once per input: modules
    that read the same tensor share a statistic. The output head's input is the decoder's
    last hidden state, so no logits are made. `advance(1)` after each block. Raises
    NonFiniteError for activations that are NaN or infinite.
    """
    meters: dict[str, _Meter] = {}
    axes: dict[str, int] = {}
    head = model.get_output_embeddings()
    decoder = model.base_model
    with torch.no_grad(), _hooks(decoder, model, statistic, meters, axes):
        for block in blocks:
            output = decoder(input_ids=block.unsqueeze(0).to(model.device), use_cache=False)
            if head is not None:
                name = f"{_module_name(model, head)}.weight"
                meters.setdefault(name, _Meter(statistic)).add(output.last_hidden_state)
                axes[name] = 1
            advance(1)
    measured = {id(meter): meter.value() for meter in meters.values()}
    for name, meter in meters.items():
        if not torch.isfinite(measured[id(meter)]).all():
            raise NonFiniteError(f"base: the input of {name} is NaN or infinite on this text")
    channels = {name: measured[id(meter)] for name, meter in meters.items()}
    return Saliency(channels, axes, blocks.numel())


@contextmanager
def _hooks(
    decoder: nn.Module,
    model: nn.Module,
    statistic: str,
    meters: dict[str, _Meter],
    axes: dict[str, int],
) -> Iterator[None]:
    """Measure the input of every module of `decoder` that has a weight, while it lasts."""
    # The tensors are kept, so that no other one can take their identity meanwhile.
    recent: deque[tuple[Tensor, int, _Meter]] = deque(maxlen=RECENT_INPUTS)

    def hook_for(name: str, axis: int, width: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
            if x.shape[-1] != width:
                return
            for tensor, version, meter in recent:
                if tensor is x and version == x._version:
                    meters[name], axes[name] = meter, axis
                    return
            meters.setdefault(name, _Meter(statistic)).add(x)
            axes[name] = axis
            recent.append((x, x._version, meters[name]))

        return hook

    names = {id(module): name for name, module in model.named_modules()}
    handles = []
    for module in decoder.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Embedding) or not isinstance(weight, Tensor) or weight.ndim > 2:
            continue
        axis = 0 if weight.ndim == 1 or isinstance(module, Conv1D) else 1
        hook = hook_for(f"{names[id(module)]}.weight", axis, weight.shape[axis])
        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _module_name(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)
