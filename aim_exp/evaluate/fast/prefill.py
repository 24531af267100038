"""The first pass over a batch of prompts; what many of them begin with is computed once.

Few-shot prompts share their examples, those of one template its words. lm-eval's own model,
and transformers, compute every prompt of a batch from its first token on.
"""

import inspect
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

LENGTH_DEPENDENT = {"dynamic", "longrope"}
"""Kinds of rotary embeddings whose frequencies follow the longest row of a pass."""
WORTH_A_PASS = 0.1
"""Share of a batch's tokens that must be saved: a pass of its own costs something too."""


@dataclass(frozen=True)
class Prefilled:
    """`outputs` of the model, with the logits after each prompt, [prompts, 1, vocabulary].

    `mask` [prompts, columns] is 1 where the cache holds a token of the prompt; all prompts end
    in the last column.
    """

    outputs: Any
    mask: Tensor


def can_continue(model: Any) -> bool:
    """Whether `prefill`, and going on from it, is right for this model."""
    takes = inspect.signature(model.forward).parameters
    return (
        {"position_ids", "past_key_values", "logits_to_keep"} <= set(takes)
        and model._supports_default_dynamic_cache()
        and has_rows(empty_cache(model))
        and rows_are_independent(model)
    )


def rows_are_independent(model: Any) -> bool:
    """Whether neither the other rows of a batch nor the passes so far change how a row is seen."""
    rope = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, Mapping))]
    return not any(kind.get("rope_type") in LENGTH_DEPENDENT for kind in kinds)


def prefill(model: Any, prompts: Sequence[Sequence[int]], cache: DynamicCache) -> Prefilled:
    """Compute `prompts`, at least one token each, into the empty `cache`, a row for each."""
    depth = shared_depth(prompts) if _is_windowless(model, cache) else 0
    mask = torch.ones((len(prompts), depth), dtype=torch.int64, device=model.device)
    if depth:
        starts: dict[tuple[int, ...], int] = {}
        of_prompt = [starts.setdefault(tuple(p[:depth]), len(starts)) for p in prompts]
        ids, own = padded(list(starts), "left", model.device)
        _forward(model, ids, own, cache)
        select_rows(cache, torch.tensor(of_prompt, device=model.device))
    ids, own = padded([prompt[depth:] for prompt in prompts], "left", model.device)
    mask = torch.cat([mask, own], dim=1)
    return Prefilled(_forward(model, ids, mask, cache), mask)


def _is_windowless(model: Any, cache: DynamicCache) -> bool:
    """A window would count the columns between the start and the rest of a shorter prompt."""
    local = "local" in getattr(model.config, "attention_layers", ())  # GPT-Neo's, in no cache
    return not local and all(type(layer) is DynamicLayer for layer in cache.layers)


def _forward(model: Any, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Any:
    return model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions(mask)[:, -ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        return_dict=True,
    )


def shared_depth(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens to compute once for all prompts that have them; 0: none."""
    common = _common_with_next(prompts)
    depths = range(max(1, min(map(len, prompts))))  # every prompt keeps a token, if it has one
    costs = [_cost(prompts, common, depth) for depth in depths]
    depth = min(depths, key=costs.__getitem__)
    return depth if costs[depth] <= (1 - WORTH_A_PASS) * costs[0] else 0


def tokens_computed(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens `prefill` goes through, padding included."""
    return _cost(prompts, _common_with_next(prompts), shared_depth(prompts))


def _common_with_next(prompts: Sequence[Sequence[int]]) -> list[int]:
    """How many first tokens neighbours share, the prompts in order of their tokens; ascending."""
    ordered = sorted(map(list, prompts))
    return sorted(map(_n_common, ordered, ordered[1:]))


def _n_common(one: Sequence[int], other: Sequence[int]) -> int:
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def _cost(prompts: Sequence[Sequence[int]], common: Sequence[int], depth: int) -> int:
    starts = 1 + bisect_left(common, depth)
    return starts * depth + len(prompts) * (max(map(len, prompts)) - depth)


def empty_cache(model: Any) -> DynamicCache:
    """A cache for keys and values of the language model."""
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def fork(cache: DynamicCache) -> DynamicCache:
    """A cache that begins as this one; neither sees what the other goes on with.

    What a layer holds is never changed in place: it makes longer tensors of it.
    """
    other = copy(cache)
    other.layers = [copy(layer) for layer in cache.layers]
    return other


def has_rows(cache: Any) -> bool:
    """Whether the cache is keys and values of every row, and no more: rows may go or repeat."""
    kinds = (DynamicLayer, DynamicSlidingWindowLayer)
    return type(cache) is DynamicCache and all(type(layer) in kinds for layer in cache.layers)


def select_rows(cache: Any, rows: Tensor) -> None:
    """Only these rows, in place; by `index_select`, much faster than `batch_select_indices`."""
    cache.reorder_cache(rows)


def padded(
    sequences: Sequence[Sequence[int]], side: Literal["left", "right"], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and mask, int64 [sequences, longest], zero where there is no token."""
    longest = max(map(len, sequences))

    def pad(row: Sequence[int]) -> list[int]:
        gap = [0] * (longest - len(row))
        return [*gap, *row] if side == "left" else [*row, *gap]

    ids = torch.tensor([pad(sequence) for sequence in sequences], device=device)
    mask = torch.tensor([pad([1] * len(sequence)) for sequence in sequences], device=device)
    return ids, mask


def positions(mask: Tensor) -> Tensor:
    """Of each token among its row's own, [rows, tokens]."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
