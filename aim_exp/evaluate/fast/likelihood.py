"""Log-likelihoods of continuations; a context that several of them share is computed once.

lm-eval's own model computes the context of a multiple-choice item again for every choice.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from aim_exp.evaluate.fast.prefill import empty_cache, padded, positions, prefill, select_rows


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
    cache = empty_cache(model)
    prefilled = prefill(model, list(contexts), cache)
    continuations = [continuation for _, continuation in requests]
    if max(map(len, continuations)) > 1:
        select_rows(cache, rows)
    logits, mask = prefilled.outputs.logits[rows], prefilled.mask[rows]
    return of_continuations(model, logits, mask, cache, continuations, dtype)


@torch.no_grad()
def of_continuations(
    model: Any,
    logits: Tensor,
    mask: Tensor,
    cache: DynamicCache,
    continuations: Sequence[Sequence[int]],
    dtype: torch.dtype | None,
) -> list[tuple[float, bool]]:
    """As `loglikelihoods`, where the contexts are computed already, a row each.

    `logits` [rows, 1, vocabulary] and `mask` [rows, columns] are those of `Prefilled`; `cache` goes
    on with the continuations.
    """
    targets, own = padded(continuations, "right", model.device)
    if targets.shape[1] > 1:
        mask = torch.cat([mask, own[:, :-1]], dim=1)
        further = model(
            input_ids=targets[:, :-1],
            attention_mask=mask,
            position_ids=positions(mask)[:, 1 - targets.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        ).logits
        logits = torch.cat([logits, further], dim=1)
    logprobs = logits.log_softmax(-1, dtype=dtype)
    chosen = logprobs.gather(-1, targets[..., None])[..., 0].where(own.bool(), 0.0)
    greedy = (logprobs.argmax(-1) == targets) | ~own.bool()
    return list(zip(chosen.sum(-1).tolist(), greedy.all(-1).tolist(), strict=True))
