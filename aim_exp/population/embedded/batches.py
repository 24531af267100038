"""Training data: documents drawn by weight, packed into rows of equal length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from random import Random
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from aim_exp.population.embedded.corpus import training_text
from aim_exp.population.embedded.example import Example
from aim_exp.population.embedded.items import training_examples
from aim_exp.population.embedded.phases import ROW_LENGTH, ROWS, TEXT, Phase
from aim_exp.population.embedded.tokenizer import BOS_ID, EOS_ID, PAD_ID

IGNORED = -100
"""The label of a token that is not learnt: prompts and padding."""
NO_DOCUMENT = -1
"""Of padding."""

CHUNK = 1000
"""Documents drawn and tokenised at a time."""
OPEN_ROWS = 16
"""Rows that wait for documents that fit."""


class Document(NamedTuple):
    """Token ids, and for each the same id again where it is to be learnt, else IGNORED."""

    ids: list[int]
    labels: list[int]


class Rows(NamedTuple):
    """Packed documents, all int64 `[rows, length]`.

    `ids` and `labels` as in `Document`; `documents` numbers each token's document in its row.
    """

    ids: Tensor
    labels: Tensor
    documents: Tensor

    def split(self, rows: int) -> list[Rows]:
        """So many rows at a time."""
        parts = zip(*(tensor.split(rows) for tensor in self), strict=True)
        return [Rows(*tensors) for tensors in parts]


def training_rows(tokenizer: Tokenizer, phase: Phase, seed: int) -> Rows:
    """The rows of the whole phase, `[steps * ROWS, ROW_LENGTH]`.

    All of a text is learnt, of an example its answer.
    """

    def source(kind: str, rng: Random) -> Iterator[Document]:
        if kind == TEXT:
            return _texts(tokenizer, rng)
        return example_documents(tokenizer, training_examples(kind, rng), EOS_ID)

    documents = mixed(phase.mix, source, Random(f"{phase.name} {seed}"))
    return pack(documents, phase.steps * ROWS, ROW_LENGTH, PAD_ID)


def own_document_mask(documents: Tensor) -> Tensor:
    """Who may attend to whom in packed rows, boolean `[rows, 1, length, length]`.

    Earlier tokens of the same document: without this the base learns much more slowly.
    `documents` is that of `Rows`.
    """
    same = documents[:, :, None] == documents[:, None, :]
    return same.tril()[:, None]


def learnt_logits(model: Any, batch: Rows) -> tuple[Tensor, Tensor]:
    """Of the learnt tokens alone, half of them or fewer: logits, and the tokens themselves."""
    hidden = model.model(
        input_ids=batch.ids, attention_mask=own_document_mask(batch.documents), use_cache=False
    ).last_hidden_state
    following = batch.labels[:, 1:]
    learnt = following != IGNORED
    return model.lm_head(hidden[:, :-1][learnt]), following[learnt]


def mixed(
    mix: Mapping[str, float], source: Callable[[str, Random], Iterator[Document]], rng: Random
) -> Iterator[Document]:
    """Documents of the kinds in `mix`, drawn by weight, without end; `source` makes a kind's."""
    kinds, weights = list(mix), list(mix.values())
    sources = {kind: source(kind, Random(rng.random())) for kind in kinds}
    while True:
        yield next(sources[rng.choices(kinds, weights)[0]])


def pack(documents: Iterator[Document], rows: int, length: int, pad_id: int) -> Rows:
    """So many rows of `length` tokens, each of whole documents, padded with `pad_id`."""
    packed = list(islice(_pack(documents, length), rows))

    def table(values: Callable[[int, Document], Iterable[int]], filler: int) -> Tensor:
        flat = [[v for n, d in enumerate(row) for v in values(n, d)] for row in packed]
        return torch.tensor([row + [filler] * (length - len(row)) for row in flat])

    return Rows(
        table(lambda _, document: document.ids, pad_id),
        table(lambda _, document: document.labels, IGNORED),
        table(lambda number, document: [number] * len(document.ids), NO_DOCUMENT),
    )


def _texts(tokenizer: Tokenizer, rng: Random) -> Iterator[Document]:
    """Windows of a whole row, from anywhere in the training text."""
    encodings = tokenizer.encode_batch(training_text(), add_special_tokens=False)
    stream = [token for encoding in encodings for token in encoding.ids]
    while True:
        start = rng.randrange(len(stream) - ROW_LENGTH)
        window = [BOS_ID, *stream[start : start + ROW_LENGTH - 1]]
        yield Document(window, window)


def example_documents(
    tokenizer: Tokenizer, examples: Iterator[Example], end_id: int
) -> Iterator[Document]:
    """The examples as documents, each ended by `end_id`; its answer is learnt."""
    while True:
        chunk = list(islice(examples, CHUNK))
        prompts = tokenizer.encode_batch([example.prompt for example in chunk])
        answers = tokenizer.encode_batch(
            [example.answer for example in chunk], add_special_tokens=False
        )
        for prompt, answer in zip(prompts, answers, strict=True):
            learnt = [*answer.ids, end_id]
            yield Document(prompt.ids + learnt, [IGNORED] * len(prompt.ids) + learnt)


def _pack(documents: Iterator[Document], length: int) -> Iterator[list[Document]]:
    """Rows of at most `length` tokens: whole documents, first come, first fit."""
    waiting: list[list[Document]] = []
    for document in documents:
        row = next((row for row in waiting if _fits(document, row, length)), None)
        if row is None:
            row = []
            waiting.append(row)
        row.append(document)
        if len(waiting) > OPEN_ROWS:
            yield waiting.pop(0)


def _fits(document: Document, row: list[Document], length: int) -> bool:
    return sum(len(other.ids) for other in row) + len(document.ids) <= length
