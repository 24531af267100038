"""Greedy decoding in which a row leaves the batch when its answer is complete.

lm-eval's own stopping criterion ends a batch only when every row holds the same stop sequence;
until then, rows that are done are decoded on. Here each row ends where it would end alone.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from aim_exp.evaluate.fast.prefill import (
    Prefilled,
    can_continue,
    has_rows,
    positions,
    prefill,
    rows_are_independent,
    select_rows,
)

LOOKBACK = 2
"""Tokens looked at beyond those of a stop sequence, which may come in other pieces; lm-eval's."""
PREFILL_INPUTS = {
    "attention_mask",
    "position_ids",
    "past_key_values",
    "use_cache",
    "logits_to_keep",
}
"""What `prefill` stands in for; a model that is given more is prefilled by transformers."""
KNOWN_ENDINGS = 1 << 16
"""How many endings are remembered; most are seen again, in other rows and by other models."""

AfterPrefill = Callable[[list[list[int]], Prefilled, Any], None]
"""What looks at prompts whose first pass is done, with the cache that answers go on from."""


class StopAtText(StoppingCriteria):
    """Ends each row whose last tokens spell one of the texts; the prompt does not count."""

    def __init__(self, tokenizer: Any, texts: Sequence[str], prompt_length: int) -> None:
        lengths = [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        self._window = max(lengths, default=0) + LOOKBACK
        self._prompt_length = prompt_length
        self._stops = _stops(tokenizer, tuple(texts))

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Which rows of `input_ids` [rows, tokens] end here, bool [rows]."""
        start = max(self._prompt_length, input_ids.shape[1] - self._window)
        endings = map(tuple, input_ids[:, start:].tolist())
        return torch.tensor([self._stops(e) for e in endings], device=input_ids.device)


@lru_cache(maxsize=8)
def _stops(tokenizer: Any, texts: tuple[str, ...]) -> Any:
    """Whether tokens spell one of the texts, a function with a memory."""

    @lru_cache(maxsize=KNOWN_ENDINGS)
    def stops(tokens: tuple[int, ...]) -> bool:
        ending = tokenizer.decode(tokens)
        return any(text in ending for text in texts)

    return stops


def decode(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: StoppingCriteriaList,
    generation_config: Any,
    after_prefill: AfterPrefill | None = None,
    **inputs: Any,
) -> Tensor:
    """A decoding method for transformers' `generate(custom_generate=...)`.

    `input_ids` [rows, tokens] are padded on the left; they come back with the answers, padded
    on the right. What cannot lose rows on the way (logits processors, caches that are more
    than keys and values, positions that are more than a number, rows that depend on each
    other) goes transformers' own way.
    """
    selectable = rows_are_independent(model) and _selectable(inputs, len(input_ids))
    if len(logits_processor) or not selectable:
        return model._sample(
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            **inputs,
        )
    inputs.pop("synced_gpus", None)
    answered = input_ids.new_full(
        (len(input_ids), generation_config.max_length), generation_config._pad_token_tensor
    )
    rows = torch.arange(len(input_ids), device=input_ids.device)
    outputs, inputs = _prefill(model, input_ids, generation_config, inputs, after_prefill)
    with model._optimize_model_for_decode():
        while True:
            inputs = model._update_model_kwargs_for_generation(
                outputs, inputs, is_encoder_decoder=False
            )
            tokens = outputs.logits[:, -1].float().argmax(-1)
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
            ended = stopping_criteria(input_ids, None)
            if ended.any():
                answered[rows[ended], : input_ids.shape[1]] = input_ids[ended]
                if ended.all():
                    return answered[:, : input_ids.shape[1]]
                left = (~ended).nonzero()[:, 0]
                select_rows(inputs["past_key_values"], left)
                inputs = {k: v[left] if isinstance(v, Tensor) else v for k, v in inputs.items()}
                rows, input_ids = rows[left], input_ids[left]
            outputs = model(
                **model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **inputs),
                return_dict=True,
            )


def _prefill(
    model: Any,
    input_ids: Tensor,
    generation_config: Any,
    inputs: dict[str, Any],
    after_prefill: AfterPrefill | None,
) -> tuple[Any, dict[str, Any]]:
    """The model's outputs for the prompts, and the inputs to go on with."""
    if set(inputs) != PREFILL_INPUTS or not can_continue(model):
        return model._prefill(input_ids, generation_config, inputs), inputs
    mask = inputs["attention_mask"]
    padding = [0] * len(input_ids) if mask is None else (mask == 0).sum(-1).tolist()
    prompts = [row[n:] for row, n in zip(input_ids.tolist(), padding, strict=True)]
    done = prefill(model, prompts, inputs["past_key_values"])
    if after_prefill:
        after_prefill(prompts, done, inputs["past_key_values"])
    inputs = {**inputs, "attention_mask": done.mask, "position_ids": positions(done.mask)}
    return done.outputs, inputs


def _selectable(inputs: dict[str, Any], rows: int) -> bool:
    cache = inputs.get("past_key_values")
    tensors = [value for value in inputs.values() if isinstance(value, Tensor)]
    return (
        has_rows(cache)
        and all(tensor.ndim == 2 and len(tensor) == rows for tensor in tensors)
        and not inputs.get("synced_gpus")
    )
