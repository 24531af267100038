"""Where a transformers model holds a checkpoint's tensors: all that we know of its internals.

transformers renames tensors while it loads them, and fuses those of a layer's experts into
one parameter. Everything else works on checkpoint names; this module, written against
transformers 5, is the only one that uses its private interface.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)
from transformers.models.auto.auto_factory import _get_model_class
from transformers.utils.loading_report import LoadStateDictInfo

from aim_exp.checkpoint.files import CONFIG_FILE, GENERATION_CONFIG
from aim_exp.checkpoint.layouts import Layout, Place
from aim_exp.checkpoint.reader import TIED, Checkpoint
from aim_exp.errors import CheckpointError, first_line

GATE_UP, DOWN = "gate_up_proj", "down_proj"
"""A module of experts holds these two parameters, [experts, out, in] each."""


def model_config(checkpoint: Checkpoint) -> Any:
    """transformers' configuration of a checkpoint, with a head of its own where it has one."""
    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    if checkpoint.head:
        _set_tied(config, tied=False)
    return config


def generation_config(checkpoint: Checkpoint) -> Any:
    """transformers' settings of a checkpoint's answers. CheckpointError where it refuses them."""
    has_own = (checkpoint.folder / GENERATION_CONFIG).is_file()
    old = {"config_file_name": CONFIG_FILE, "_from_model_config": True}
    try:
        settings = GenerationConfig.from_pretrained(checkpoint.folder, **({} if has_own else old))
        torch.tensor(settings.eos_token_id or 0)  # as it does when it generates
    except Exception as error:  # whatever a broken file makes it raise
        path = checkpoint.folder / (GENERATION_CONFIG if has_own else CONFIG_FILE)
        raise CheckpointError(f"{checkpoint.label}: {path}: {first_line(error)}") from error
    return settings


def auto_class(config: Any) -> Any:
    """The Auto class that builds the whole model, of text or of images and text."""
    is_text = type(config) in AutoModelForCausalLM._model_mapping
    return AutoModelForCausalLM if is_text else AutoModelForImageTextToText


def loaded_model(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[Any, Mapping[str, Any]]:
    """The checkpoint's model, and what transformers says of its loading.

    Of the weights it sees what we read, so that an index, a prefix or an adapter beside them means
    the same to both.
    """
    config, generation = model_config(checkpoint), generation_config(checkpoint)
    model_class = _get_model_class(config, auto_class(config)._model_mapping)
    return model_class.from_pretrained(
        None,
        config=config,
        state_dict=checkpoint.unread(),
        dtype=dtype,
        generation_config=generation,
        output_loading_info=True,
        trust_remote_code=False,
    )


def built_layout(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """How tensors of these names fill the checkpoint's model, which is built without memory.

    Raises CheckpointError for an architecture that transformers does not know by itself.
    """
    try:
        config = model_config(checkpoint)
        with torch.device("meta"):
            model = auto_class(config).from_config(config)
        return _layout(model, shapes)
    except Exception as error:  # a configuration makes it raise every kind
        raise CheckpointError(
            f"{checkpoint.label}: transformers cannot build what {checkpoint.folder / CONFIG_FILE} "
            f"describes ({first_line(error)})"
        ) from error


def _layout(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    places = checkpoint_places(model, shapes)
    filled = Counter(place.parameter for place in places.values())
    wanted = {place.parameter: place.parts for place in places.values() if place.expert is not None}
    state, rest = model.state_dict(), set(shapes) - set(places)
    info = LoadStateDictInfo(
        missing_keys={
            name
            for name, tensor in state.items()
            if filled[name] < (wanted[name] * len(tensor) if name in wanted else 1)
        },
        unexpected_keys=rest.copy(),
        mismatched_keys=set(),
        error_msgs=[],
        conversion_errors={},
        skipped_pp_keys=set(),
    )
    model._adjust_missing_and_unexpected_keys(info)
    for pair in model.all_tied_weights_keys.items():  # one of two will do
        if not info.missing_keys.issuperset(pair):
            info.missing_keys.difference_update(pair)
    made = {f".{name}" for name, _ in model.named_buffers()} - {f".{name}" for name in state}
    stray = {
        name
        for name in info.unexpected_keys
        if not any(buffer.endswith(f".{name}") for buffer in made)
    }
    integers = {n for n, place in places.items() if not state[place.parameter].is_floating_point()}
    return Layout(
        places,
        frozenset(integers),
        ignored=frozenset(rest - stray),
        stray=sorted(stray),
        absent=sorted(info.missing_keys),
        unlike={
            name: list(state[place.parameter].shape)
            for name, place in places.items()
            if place.expert is None and shapes[name] != state[place.parameter].shape
        },
    )


def checkpoint_places(model: Any, names: Iterable[str]) -> dict[str, Place]:
    """The place in `model` (on any device, meta too) of each checkpoint tensor of `names`.

    Those that transformers leaves out when it loads, such as GPT-2's masks, have none.
    Raises CheckpointError for a tensor that is more than renamed or stacked while loading.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state: dict[str, Tensor] = model.state_dict()
    places: dict[str, Place] = {}
    for name in names:
        prefix = model.base_model_prefix
        target, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if target not in state and name in state:  # as the loader does
            target, pattern = name, None
        if target not in state:
            continue
        if pattern is None:
            places[name] = Place(target)
        else:
            converter = next(c for c in converters if pattern in c.source_patterns)
            source, _ = rename_source_key(name, renamings, [])
            places[name] = _expert_place(source, pattern, converter, target)
    return places


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


def share_head(model: Any, filled: Collection[str]) -> None:
    """Let the output head be the embedding, unless its parameter is one of `filled`."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None:
        return
    tied, is_tied = f"{module_name(model, head)}.weight" not in filled, bool(tied_head(model))
    if tied and not is_tied:
        head.weight = embedding.weight
    elif is_tied and not tied:
        head.weight = nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
    _set_tied(model.config, tied=tied)


def _set_tied(config: Any, *, tied: bool) -> None:
    for part in (config, config.get_text_config()):
        setattr(part, TIED, tied)


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
