"""How an expert is fine-tuned from base: all parameters, on the answers of one kind of tasks.

The same seed gives the same weights on the same kind of processor: one thread, and everything
is drawn from seeded generators.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from aim_exp.checkpoint.files import copy_companions
from aim_exp.population.embedded.batches import (
    Document,
    Rows,
    example_documents,
    learnt_logits,
    mixed,
    pack,
)
from aim_exp.population.embedded.example import Example
from aim_exp.population.embedded.items import training_examples
from aim_exp.population.embedded.phases import Phase
from aim_exp.population.embedded.trainer import reproducible
from aim_exp.population.precision import has_quick_bfloat16
from aim_exp.population.smollm2.phases import (
    EXPERTS,
    ROW_LENGTH,
    ROWS,
    WARMUP_STEPS,
    learning_rate,
)
from aim_exp.population.training_state import forget_states, take_steps
from aim_exp.store.files import whole_folder


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
            with whole_folder(final) as unfinished:
                model.save_pretrained(unfinished)
                copy_companions(base, unfinished)
        forget_states(final)


def train(model: Any, tokenizer: Any, phase: Phase, seed: int, final: Path) -> None:
    """Train all parameters in place; the learning rate warms up, then falls linearly to zero."""

    def rate_at(rate: float, step: int) -> float:
        return rate * min((step + 1) / WARMUP_STEPS, 1.0) * (1 - step / phase.steps)

    rate = learning_rate(phase, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    losses = [
        partial(_loss, model, batch) for batch in training_rows(tokenizer, phase, seed).split(ROWS)
    ]
    model.train()
    take_steps(final, model, [optimizer], losses, rate_at)


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
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_quick_bfloat16()):
        logits, following = learnt_logits(model, batch)
    return cross_entropy(logits.float(), following)
