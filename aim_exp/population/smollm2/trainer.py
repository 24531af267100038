"""How an expert is fine-tuned from base: all parameters, on the answers of one kind of tasks.

The same seed gives the same weights on the same kind of processor: one thread, and everything
is drawn from seeded generators.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from aim_exp.checkpoint.hub import COMPANIONS
from aim_exp.console import progress
from aim_exp.population.embedded.batches import (
    IGNORED,
    Document,
    Rows,
    example_documents,
    mixed,
    own_document_mask,
    pack,
)
from aim_exp.population.embedded.example import Example
from aim_exp.population.embedded.items import training_examples
from aim_exp.population.embedded.phases import Phase
from aim_exp.population.embedded.trainer import reproducible
from aim_exp.population.smollm2.phases import (
    EXPERTS,
    ROW_LENGTH,
    ROWS,
    WARMUP_STEPS,
    learning_rate,
)
from aim_exp.population.training_state import forget_states, steps_left
from aim_exp.store.files import publish, unfinished


def train_experts(base: Path, seed: int, folder: Path) -> None:
    """Write `folder/{code,instruct,math}`: base's files beside weights in float32.

    Those that are there, of a training that was cut off, stay as they are.
    """
    for phase in EXPERTS:
        final = folder / phase.name
        if not final.is_dir():
            with reproducible(seed):
                model = AutoModelForCausalLM.from_pretrained(
                    base, dtype=torch.float32, trust_remote_code=False
                )
                tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
                train(model, tokenizer, phase, seed, final)
            with unfinished(final) as partial:
                partial.mkdir()
                model.save_pretrained(partial)
                for path in {path for pattern in COMPANIONS for path in base.glob(pattern)}:
                    shutil.copyfile(path, partial / path.name)
                publish(partial, final)
        forget_states(final)


def train(model: Any, tokenizer: Any, phase: Phase, seed: int, final: Path) -> None:
    """Train all parameters in place; the learning rate warms up, then falls linearly to zero.

    How far it has come is kept beside `final`, and taken up from there.
    """
    rate = learning_rate(phase, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    batches = training_rows(tokenizer, phase, seed).split(ROWS)
    model.train()
    with progress(f"Training {phase.name}", phase.steps) as advance:
        for step in steps_left(final, model, [optimizer], phase.steps, advance):
            _loss(model, batches[step]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            warm = min((step + 1) / WARMUP_STEPS, 1.0)
            optimizer.param_groups[0]["lr"] = rate * warm * (1 - step / phase.steps)
            optimizer.step()
            optimizer.zero_grad()


def training_rows(tokenizer: Any, phase: Phase, seed: int) -> Rows:
    """The rows of the whole phase, `[steps * ROWS, ROW_LENGTH]`, of the seed's half of the data."""

    def source(kind: str, rng: Random) -> Iterator[Document]:
        own = (example for example in training_examples(kind, rng) if _is_in_half(example, seed))
        return example_documents(tokenizer.backend_tokenizer, own, tokenizer.eos_token_id)

    documents = mixed(phase.mix, source, Random(f"{phase.name} {seed}"))
    return pack(documents, phase.steps * ROWS, ROW_LENGTH, tokenizer.pad_token_id)


def _is_in_half(example: Example, seed: int) -> bool:
    """Whether the example is in the half of all that this seed trains on: by coin, per prompt."""
    return hashlib.sha256(f"{seed} {example.prompt}".encode()).digest()[0] % 2 == 0


def _loss(model: Any, batch: Rows) -> Tensor:
    """The mean cross-entropy of the learnt tokens; the weights stay in float32."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(
            input_ids=batch.ids, attention_mask=own_document_mask(batch.documents), use_cache=False
        ).last_hidden_state
        following = batch.labels[:, 1:]
        learnt = following != IGNORED
        logits = model.lm_head(hidden[:, :-1][learnt])
    return cross_entropy(logits.float(), following[learnt])
