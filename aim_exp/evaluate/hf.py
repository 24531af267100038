"""lm-eval's model for transformers, with the same responses for less work."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import StoppingCriteriaList
from transformers.generation.configuration_utils import GenerationMode

from aim_exp.evaluate.fast.greedy import StopAtText, decode
from aim_exp.evaluate.fast.likelihood import loglikelihoods, of_continuations
from aim_exp.evaluate.fast.prefill import Prefilled, can_continue, fork, tokens_computed

KNOWN_TEXTS = 1 << 14
"""How many texts' tokens are remembered per tokenizer, for the models still to come."""
KNOWN_BATCHES = 1 << 8
"""The same for padded batches of prompts."""
BATCH_SIZE = 64
"""Prompts answered at once, unless told otherwise."""
SMALL_CACHE = 1 << 28
"""Bytes; more prompts are, while their keys and values, at full length, take no more."""

Encoded = tuple[tuple[str, str] | None, list[int], list[int]]
"""A request for a log-likelihood: its texts, and the tokens of context and continuation."""

_HFLM: Any = HFLM  # lm-eval's decorators hide its signature from a type checker
_known_tokens: WeakKeyDictionary[Any, dict[Any, array[int]]] = WeakKeyDictionary()
_known_batches: WeakKeyDictionary[Any, dict[Any, tuple[Tensor, Tensor]]] = WeakKeyDictionary()


class LiveHFLM(_HFLM):
    """HFLM round a model in memory, of which a sweep scores many."""

    gold_columns: Mapping[str, str]
    """By task: the column of the answer that is judged beside the one that is generated."""

    def __init__(self, *, batch_size: int | None, **settings: Any) -> None:
        super().__init__(batch_size=batch_size or BATCH_SIZE, **settings)
        if batch_size is None:
            self.batch_size_per_gpu = max(BATCH_SIZE, self._small_batch())
        self.gold_columns = {}
        self._gold: dict[tuple[int, ...], tuple[tuple[str, str], list[int]]] = {}
        _reuse_memory()

    def _small_batch(self) -> int:
        """How many rows fit into SMALL_CACHE, whatever the number of heads that share keys."""
        config = self.model.config.get_text_config(decoder=True)
        numbers = 2 * config.num_hidden_layers * config.hidden_size * self.max_length
        return SMALL_CACHE // (numbers * self.model.dtype.itemsize)

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """As HFLM's, once per text and tokenizer."""
        known = _known_tokens.setdefault(self.tokenizer, {})
        key = (string, add_special_tokens, self.add_bos_token, left_truncate_len)
        if key in known and not kwargs:
            return known[key].tolist()
        tokens = super().tok_encode(string, add_special_tokens, left_truncate_len, **kwargs)
        if len(known) < KNOWN_TEXTS and not kwargs:
            known[key] = array("l", tokens)
        return tokens

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As HFLM's, once per batch and tokenizer, unless it has a cut to tell of."""
        known = _known_batches.setdefault(self.tokenizer, {})
        key = (tuple(strings), padding_side, left_truncate_len, truncation, self.add_bos_token)
        if key not in known:
            ids, mask = super().tok_batch_encode(
                list(strings), padding_side, left_truncate_len, truncation
            )
            cut = left_truncate_len is not None and ids.shape[1] >= left_truncate_len
            if cut or len(known) >= KNOWN_BATCHES:
                return ids, mask
            known[key] = ids, mask
        return known[key]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As HFLM's; gold answers are judged after the same first pass over the prompts."""
        self._gold = {}
        for request in requests:
            if column := self.gold_columns.get(request.task_name or ""):
                texts = request.args[0], request.doc[column]
                context, answer = self._encode_pair(*texts) if all(texts) else ([], [])
                if answer and len(context) + len(answer) <= self.max_length + 1:
                    self._gold[*context] = texts, answer
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _judge_gold(self, prompts: list[list[int]], prefilled: Prefilled, cache: Any) -> None:
        """Tell the cache of responses how likely the gold answers are.

        Where one of them is not known or does not fit, of none: they are asked for later.
        """
        golds = [gold for prompt in prompts if (gold := self._gold.get(tuple(prompt)))]
        if len(golds) < len(prompts):
            return
        likelihoods = of_continuations(
            self.model, prefilled.outputs.logits, prefilled.mask, fork(cache),
            [gold for _, gold in golds], self.softmax_dtype,
        )  # fmt: skip
        for (texts, _), likelihood in zip(golds, likelihoods, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, likelihood)

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **arguments: Any
    ) -> Tensor:
        """As HFLM's, each greedy row only as far as it goes."""
        arguments = {k: v for k, v in arguments.items() if (k, v) != ("temperature", 0.0)}
        config = copy(self.model.generation_config)
        config.update(**arguments)
        greedy = config.get_generation_mode() is GenerationMode.GREEDY_SEARCH
        if not greedy or self.backend != "causal":
            return super()._model_generate(context, max_length, stop, **arguments)
        ends = StopAtText(self.tokenizer, stop, context.shape[1])
        return self.model.generate(
            input_ids=context,
            max_length=max_length,
            stopping_criteria=StoppingCriteriaList([ends]),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            custom_generate=partial(decode, after_prefill=self._judge_gold),
            **arguments,
        )

    def _loglikelihood_tokens(
        self, requests: list[Encoded], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """As HFLM's, each context once; it keeps the requests that must be cut."""
        fits = [len(c) + len(n) <= self.max_length + 1 for _, c, n in requests]
        if self.backend != "causal" or not all(fits) or not can_continue(self.model):
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        answers: dict[int, tuple[float, bool]] = {}
        for indices in self._batches(requests):
            batch = [requests[index] for index in indices]
            results = loglikelihoods(self.model, [(c, n) for _, c, n in batch], self.softmax_dtype)
            answers.update(zip(indices, results, strict=True))
            for (texts, *_), answer in zip(batch, results, strict=True):
                if texts is not None:  # a window of a longer text; HFLM tells of the whole
                    self.cache_hook.add_partial("loglikelihood", texts, answer)
        return [answers[index] for index in range(len(requests))]

    def _batches(self, requests: list[Encoded]) -> list[list[int]]:
        """Indices of requests, those of a context together, the longest batch first.

        In order of length there is least padding, in order of the tokens most is shared: as it
        costs less.
        """
        longest: Counter[tuple[int, ...]] = Counter()
        for _, context, continuation in requests:
            longest[*context] = max(longest[*context], len(context) + len(continuation))

        def by_length(index: int) -> tuple[int, list[int]]:
            _, context, _ = requests[index]
            return -longest[*context], context

        def by_tokens(index: int) -> list[int]:
            return requests[index][1]

        def cut(order: Callable[[int], Any]) -> list[list[int]]:
            ordered = sorted(range(len(requests)), key=order)
            return [
                ordered[start : start + self.batch_size]
                for start in range(0, len(ordered), self.batch_size)
            ]

        def cost(batches: list[list[int]]) -> int:
            contexts = ({tuple(requests[i][1]): None for i in batch} for batch in batches)
            return sum(tokens_computed(list(batch)) for batch in contexts)

        batches = min(cut(by_length), cut(by_tokens), key=cost)
        return sorted(batches, key=lambda batch: -max(longest[*requests[i][1]] for i in batch))


def _reuse_memory() -> None:
    """Let glibc keep the memory of activations for the next ones, instead of fetching new pages.

    It returns blocks to the system that are larger than the largest one ever returned, 32 MiB
    at the most; this is such a block, never touched. Other allocators pass it over.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
