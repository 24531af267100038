"""Log-likelihoods of continuations; a context that several of them share is computed once.

lm-eval's own model computes the context of a multiple-choice item again for every choice.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from aim_exp.evaluate.greedy import has_rows, select_rows


def can_continue(model: Any) -> bool:
    """Whether `loglikelihoods` knows how to go on from a context with this model."""
    takes = inspect.signature(model.forward).parameters
    return (
        {"position_ids", "past_key_values", "logits_to_keep"} <= set(takes)
        and model._supports_default_dynamic_cache()
        and has_rows(_empty_cache(model))
    )


@torch.no_grad()
def loglikelihoods(
    model: Any, requests: Sequence[tuple[Sequence[int], Sequence[int]]], dtype: torch.dtype | None
) -> list[tuple[float, bool]]:
    """Of each continuation, given its context; and whether greedy decoding would give it.

    A request is the tokens of both, at least one each. Probabilities are computed in `dtype`,
    None for that of the logits.
    """
    contexts: dict[tuple[int, ...], int] = {}
    of_request = [contexts.setdefault(tuple(context), len(contexts)) for context, _ in requests]
    rows = torch.tensor(of_request, device=model.device)
    ids, mask = _padded(list(contexts), "left", model.device)
    cache = _empty_cache(model)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=_positions(mask),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[rows]
    targets, own = _padded([continuation for _, continuation in requests], "right", model.device)
    if targets.shape[1] > 1:
        select_rows(cache, rows)
        mask = torch.cat([mask[rows], own[:, :-1]], dim=1)
        further = model(
            input_ids=targets[:, :-1],
            attention_mask=mask,
            position_ids=_positions(mask)[:, ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        ).logits
        logits = torch.cat([logits, further], dim=1)
    logprobs = logits.log_softmax(-1, dtype=dtype)
    chosen = logprobs.gather(-1, targets[..., None])[..., 0].where(own.bool(), 0.0)
    greedy = (logprobs.argmax(-1) == targets) | ~own.bool()
    return list(zip(chosen.sum(-1).tolist(), greedy.all(-1).tolist(), strict=True))


def _empty_cache(model: Any) -> DynamicCache:
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def _padded(
    sequences: Sequence[Sequence[int]], side: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and mask, int64 [sequences, longest], zero where there is no token."""
    tokens = [torch.tensor(sequence) for sequence in sequences]
    ids = pad_sequence(tokens, batch_first=True, padding_side=side)
    mask = pad_sequence([torch.ones_like(t) for t in tokens], batch_first=True, padding_side=side)
    return ids.to(device), mask.to(device)


def _positions(mask: Tensor) -> Tensor:
    """Of each token among its row's own, [rows, tokens]."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
