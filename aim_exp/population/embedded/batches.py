"""Training data: documents drawn by weight, packed into rows of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from random import Random
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from aim_exp.population.embedded.corpus import training_text
from aim_exp.population.embedded.items import training_examples
from aim_exp.population.embedded.phases import ROW_LENGTH, ROWS, TEXT, Phase
from aim_exp.population.embedded.tokenizer import BOS_ID, EOS_ID, PAD_ID

IGNORED = -100
"""The label of a token that is not learnt: prompts and padding."""

CHUNK = 1000
"""Documents drawn and tokenised at a time."""
OPEN_ROWS = 16
"""Rows that wait for documents that fit."""


class Document(NamedTuple):
    """Token ids, and for each the same id again where it is to be learnt, else IGNORED."""

    ids: list[int]
    labels: list[int]


def training_rows(tokenizer: Tokenizer, phase: Phase, seed: int) -> tuple[Tensor, Tensor]:
    """Ids and labels of the whole phase, both int64 `[steps * ROWS, ROW_LENGTH]`.

    All of a text is learnt, of an example its answer.
    """
    documents = _documents(tokenizer, phase.mix, Random(f"{phase.name} {seed}"))
    packed = list(islice(_pack(documents), phase.steps * ROWS))
    ids = [_padded(row.ids, PAD_ID) for row in packed]
    labels = [_padded(row.labels, IGNORED) for row in packed]
    return torch.tensor(ids), torch.tensor(labels)


def own_document_mask(ids: Tensor) -> Tensor:
    """Who may attend to whom in packed rows, boolean `[rows, 1, length, length]`.

    Earlier tokens of the same document, which `<s>` begins: without this the base learns
    much more slowly.
    """
    document = (ids == BOS_ID).cumsum(dim=1)
    same = document[:, :, None] == document[:, None, :]
    return same.tril()[:, None]


def _documents(tokenizer: Tokenizer, mix: Mapping[str, float], rng: Random) -> Iterator[Document]:
    """Documents of the kinds in `mix`, drawn by weight, without end."""
    kinds, weights = list(mix), list(mix.values())
    sources = {kind: _source(tokenizer, kind, Random(rng.random())) for kind in kinds}
    while True:
        yield next(sources[rng.choices(kinds, weights)[0]])


def _source(tokenizer: Tokenizer, kind: str, rng: Random) -> Iterator[Document]:
    return _texts(tokenizer, rng) if kind == TEXT else _examples(tokenizer, kind, rng)


def _texts(tokenizer: Tokenizer, rng: Random) -> Iterator[Document]:
    """Windows of a whole row, from anywhere in the training text."""
    encodings = tokenizer.encode_batch(training_text(), add_special_tokens=False)
    stream = [token for encoding in encodings for token in encoding.ids]
    while True:
        start = rng.randrange(len(stream) - ROW_LENGTH)
        window = [BOS_ID, *stream[start : start + ROW_LENGTH - 1]]
        yield Document(window, window)


def _examples(tokenizer: Tokenizer, kind: str, rng: Random) -> Iterator[Document]:
    """Training examples of a kind of task, each ended by `</s>`."""
    examples = training_examples(kind, rng)
    while True:
        chunk = list(islice(examples, CHUNK))
        prompts = tokenizer.encode_batch([example.prompt for example in chunk])
        answers = tokenizer.encode_batch(
            [example.answer for example in chunk], add_special_tokens=False
        )
        for prompt, answer in zip(prompts, answers, strict=True):
            learnt = [*answer.ids, EOS_ID]
            yield Document(prompt.ids + learnt, [IGNORED] * len(prompt.ids) + learnt)


def _pack(documents: Iterator[Document]) -> Iterator[Document]:
    """Rows of at most ROW_LENGTH tokens, each of whole documents, first come, first fit."""
    waiting: list[Document] = []
    for document in documents:
        row = next((row for row in waiting if _fits(document, row)), None)
        if row is None:
            row = Document([], [])
            waiting.append(row)
        row.ids.extend(document.ids)
        row.labels.extend(document.labels)
        if len(waiting) > OPEN_ROWS:
            yield waiting.pop(0)


def _fits(document: Document, row: Document) -> bool:
    return len(row.ids) + len(document.ids) <= ROW_LENGTH


def _padded(values: list[int], filler: int) -> list[int]:
    return values + [filler] * (ROW_LENGTH - len(values))
