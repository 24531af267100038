"""Where a transformers model holds a checkpoint's tensors: all that we know of its internals.

transformers renames tensors while it loads them, and fuses those of a layer's experts into
one parameter. Everything else works on checkpoint names; this module, written against
transformers 5, is the only one that uses its private interface.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    apply_renamings,
    rename_source_key,
)

from aim_exp.errors import CheckpointError

GATE_UP, DOWN = "gate_up_proj", "down_proj"
"""A module of experts holds these two parameters, [experts, out, in] each."""


@dataclass(frozen=True)
class Place:
    """Where a model holds a checkpoint tensor: a parameter (or buffer), or a part of one.

    Where a parameter holds all experts of a layer, [experts, out, in], the tensor is of
    expert number `expert`: the `part`-th of `parts` matrices that lie one after another.
    """

    parameter: str
    expert: int | None = None
    part: int = 0
    parts: int = 1

    def view(self, parameter: Tensor) -> Tensor:
        """The tensor itself, sharing the parameter's memory."""
        if self.expert is None:
            return parameter
        return parameter[self.expert].chunk(self.parts)[self.part]


def auto_class(folder: Path) -> Any:
    """The Auto class that builds the whole model in `folder`, of text or of images and text."""
    config = type(AutoConfig.from_pretrained(folder))
    is_text = config in AutoModelForCausalLM._model_mapping
    return AutoModelForCausalLM if is_text else AutoModelForImageTextToText


def checkpoint_places(model: Any, names: Iterable[str]) -> dict[str, Place]:
    """The place in `model` (on any device, meta too) of each checkpoint tensor of `names`.

    Those that transformers leaves out when it loads, such as GPT-2's masks, have none.
    Raises CheckpointError for a tensor that is more than renamed or stacked while loading.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state: dict[str, Tensor] = model.state_dict()
    found: dict[str, Place] = {}
    for name in names:
        prefix = model.base_model_prefix
        target, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if target not in state and name in state:  # as the loader does
            target, pattern = name, None
        if target not in state:
            continue
        if pattern is None:
            found[name] = Place(target)
        else:
            converter = next(c for c in converters if pattern in c.source_patterns)
            source = apply_renamings(name, renamings)
            found[name] = _expert_place(source, pattern, converter, target)
    return found


def _expert_place(name: str, pattern: str, converter: WeightConverter, target: str) -> Place:
    """A place in a parameter of experts; the expert's number stands for the pattern's `*`."""
    stacked = converter.operations[:1] and isinstance(converter.operations[0], MergeModulelist)
    joined = [op.dim for op in converter.operations[1:] if isinstance(op, Concatenate)]
    number = re.search(pattern.replace("*", r"(\d+)"), name)
    if not stacked or len(joined) < len(converter.operations) - 1 or joined not in ([], [1]):
        number = None
    if number is None:
        steps = ", ".join(type(op).__name__ for op in converter.operations)
        raise CheckpointError(
            f"tensor {name}: transformers loads it by {steps}, which is not supported; only "
            "experts that are stacked are"
        )
    sources = converter.source_patterns
    return Place(target, int(number[1]), sources.index(pattern), len(sources))


def tied_head(model: Any) -> Mapping[str, str]:
    """The input embedding's parameter to the output head's name, where they are one tensor."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or embedding.weight is not head.weight:
        return {}
    return {f"{module_name(model, embedding)}.weight": f"{module_name(model, head)}.weight"}


def decoder_layers(model: Any) -> nn.ModuleList:
    """The layers of the language tower, in order."""
    count = model.config.get_text_config().num_hidden_layers
    lists = [m for m in model.get_decoder().children() if isinstance(m, nn.ModuleList)]
    return next(layers for layers in lists if len(layers) == count)


def module_name(model: nn.Module, wanted: nn.Module) -> str:
    """What `model` calls its submodule `wanted`."""
    return next(name for name, module in model.named_modules() if module is wanted)


def holds_experts(module: nn.Module) -> bool:
    """Whether a module is all the experts of a layer, each a gated MLP with [out, in] matrices."""
    matrices = [getattr(module, name, None) for name in (GATE_UP, DOWN)]
    stacked = all(isinstance(matrix, Tensor) and matrix.ndim == 3 for matrix in matrices)
    return stacked and not getattr(module, "is_transposed", True)


def routed_inputs(
    experts: Any, hidden: Tensor, routes: Tensor, weights: Tensor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each expert that gets a token: its number, its inputs of `gate_up_proj` and `down_proj`.

    The arguments are those of the module's forward: `hidden` [tokens, channels], `routes`
    [tokens, k] the chosen experts, `weights` their shares. The inputs are [routed, channels].
    """
    del weights  # they scale what comes out
    for expert in routes.unique().tolist():
        x = hidden[(routes == expert).any(-1)]
        yield expert, x, experts._apply_gate(functional.linear(x, experts.gate_up_proj[expert]))
