"""A forward pass with one decoder layer in memory at a time, for models larger than memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from aim_exp.checkpoint.layouts import Place
from aim_exp.checkpoint.modules import (
    auto_class,
    checkpoint_places,
    decoder_layers,
    model_config,
    tied_head,
)
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.vocabulary import load_tokenizer
from aim_exp.errors import CheckpointError

Watch = Callable[[Iterable[nn.Module]], AbstractContextManager[None]]
"""Opened round the use of some modules of the model."""


class LayerwiseModel:
    """A causal language model whose decoder layers are read from `checkpoint` one by one.

    What comes before and after the layers stays on `device`; the rest of `model` has no
    memory. `places` and `tied` are as in `checkpoint.modules`.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: str, device: str) -> None:
        self.tokenizer: Any = load_tokenizer(checkpoint)
        config = model_config(checkpoint)
        # Buffers are made: those of the rotary embedding are in no checkpoint.
        with init_empty_weights(include_buffers=False):
            model = auto_class(config).from_config(config, dtype=getattr(torch, dtype))
        model.tie_weights()  # each of two tied parameters lost its memory by itself
        self.model: Any = model.eval().requires_grad_(False)
        self.tied: Mapping[str, str] = tied_head(model)
        self.places = checkpoint_places(model, checkpoint.tensors)
        self.layers = decoder_layers(model)
        self._checkpoint = checkpoint
        self._device = device
        # Memory is handed on to the next layer: freed pieces do not go back to the system.
        self._spare: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = {}
        self._names = {id(module): name for name, module in model.named_modules()}
        self._sources: dict[str, list[tuple[str, Place]]] = {}
        for name, place in self.places.items():
            self._sources.setdefault(place.parameter, []).append((name, place))
        inside = {id(module) for layer in self.layers for module in layer.modules()}
        self._ends = [m for m in model.get_decoder().modules() if id(m) not in inside]
        self._load(self._ends)

    def last_hidden_states(
        self, blocks: Tensor, watch: Watch, advance: Callable[[int], None]
    ) -> Iterator[Tensor]:
        """The decoder's output, [1, length, channels], for each of `blocks`, token ids [n, length].

        See `through_layers`.
        """
        states: list[Tensor] = []
        for _ in self.through_layers(blocks, states, watch, advance):
            pass

        def give(index: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return states[block].to(self._device) if index == 0 else x

        with self._replaced_layers(give), watch(self._ends):
            for block in range(len(blocks)):
                yield self._forward(blocks[block])

    def through_layers(
        self, blocks: Tensor, states: list[Tensor], watch: Watch, advance: Callable[[int], None]
    ) -> Iterator[nn.Module]:
        """Each layer, when all of `blocks`, token ids [n, length], have gone through it.

        Between layers the states of all blocks are kept in the CPU's memory, in `states`.
        `advance(1)` for each block in each layer.
        """
        arguments: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}

        def record(index: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if index == 0:
                states.append(x.cpu())
            # Masks and positions: the same for all blocks, which are of one length.
            arguments.setdefault(index, (args, kwargs))
            return x

        with self._replaced_layers(record):
            for block in blocks:
                self._forward(block)
        for index, layer in enumerate(self.layers):
            args, kwargs = arguments[index]
            with self._loaded(layer), watch(layer.modules()):
                for block, x in enumerate(states):
                    output = layer(x.to(self._device), *args, **kwargs)
                    states[block] = (output[0] if isinstance(output, tuple) else output).cpu()
                    advance(1)
            yield layer

    def _forward(self, block: Tensor) -> Tensor:
        ids = block.unsqueeze(0).to(self._device)
        return self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state

    @contextmanager
    def _replaced_layers(self, forward: Callable[..., Tensor]) -> Iterator[None]:
        """`forward(index, ...)` in the place of each layer's own."""
        for index, layer in enumerate(self.layers):
            layer.forward = lambda *args, index=index, **kwargs: forward(index, *args, **kwargs)
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward

    @contextmanager
    def _loaded(self, layer: nn.Module) -> Iterator[None]:
        self._load(layer.modules())
        try:
            yield
        finally:
            for module in layer.modules():
                for key, parameter in list(module.named_parameters(recurse=False)):
                    kind = (parameter.shape, parameter.dtype)
                    self._spare.setdefault(kind, []).append(parameter.data)
                    setattr(module, key, nn.Parameter(parameter.to("meta"), requires_grad=False))

    def _load(self, modules: Iterable[nn.Module]) -> None:
        """Give the parameters of each of `modules` itself memory, and fill them."""
        for module in modules:
            prefix = self._names[id(module)]
            for key, parameter in list(module.named_parameters(recurse=False)):
                spare = self._spare.get((parameter.shape, parameter.dtype))
                weight = spare.pop() if spare else torch.empty_like(parameter, device=self._device)
                if self._fill(f"{prefix}.{key}", weight) < weight.numel():
                    label = self._checkpoint.label
                    raise CheckpointError(f"{label}: missing keys: {prefix}.{key}")
                setattr(module, key, nn.Parameter(weight, requires_grad=False))
            for key, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, key, buffer.to(self._device))
                self._fill(f"{prefix}.{key}", getattr(module, key))

    def _fill(self, name: str, target: Tensor) -> int:
        """Copy what the checkpoint has of a parameter or buffer; how many elements that is."""
        filled = 0
        for source, place in self._sources.get(name, []):
            part = place.view(target)
            part.copy_(self._checkpoint.tensor(source).view(part.shape))
            filled += part.numel()
        return filled
