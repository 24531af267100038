"""How a model of the embedded population is made, trained and saved.

The same seed gives the same weights: everything is drawn from seeded generators of its
own, on the CPU, in float32, with one thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aim_exp.population.embedded.batches import Rows, learnt_logits, training_rows
from aim_exp.population.embedded.muon import Muon
from aim_exp.population.embedded.phases import ROWS, WARMUP_STEPS, Phase
from aim_exp.population.embedded.tokenizer import (
    BOS,
    BOS_ID,
    EOS,
    EOS_ID,
    PAD,
    PAD_ID,
    VOCABULARY_SIZE,
)
from aim_exp.population.training_state import forget_states, take_steps
from aim_exp.store.files import whole_folder

MAX_POSITIONS = 256
WEIGHTS_FILE = "model.safetensors"


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread, torch's CPU generator seeded, and gradients, which lm-eval's models switch off
    for the whole process; afterwards all are as they were.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch CUDA's too
            yield
    finally:
        torch.set_num_threads(threads)


def new_model() -> LlamaForCausalLM:
    """An untrained Llama of 0.48 million parameters."""
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=3,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=False,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def make_model(
    model: LlamaForCausalLM, tokenizer: Tokenizer, phase: Phase, seed: int, folder: Path
) -> None:
    """Train `model` in place and save it whole in `folder/NAME`; one saved there is read instead.

    A phase draws nothing from another one, so that both ways give the same weights.
    """
    final = folder / phase.name
    if final.is_dir():
        model.load_state_dict(load_file(final / WEIGHTS_FILE))
    else:
        train(model, tokenizer, phase, seed, final)
        with whole_folder(final) as unfinished:
            save_model(model, tokenizer, unfinished)
    forget_states(final)


def train(
    model: LlamaForCausalLM, tokenizer: Tokenizer, phase: Phase, seed: int, final: Path
) -> None:
    """Train all parameters in place; the learning rates warm up, then fall linearly to zero."""

    def rate_at(rate: float, step: int) -> float:
        return rate * (min((step + 1) / WARMUP_STEPS, 1.0) * (1 - step / phase.steps))

    losses = [
        partial(_loss, model, batch) for batch in training_rows(tokenizer, phase, seed).split(ROWS)
    ]
    take_steps(final, model, _optimizers(model, phase), losses, rate_at)


def save_model(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights, configuration and tokenizer in the Hugging Face layout."""
    save_file(model.state_dict(), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    GenerationConfig(pad_token_id=PAD_ID, bos_token_id=BOS_ID, eos_token_id=EOS_ID).save_pretrained(
        folder
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def _loss(model: LlamaForCausalLM, batch: Rows) -> Tensor:
    """The mean cross-entropy of the learnt tokens."""
    return cross_entropy(*learnt_logits(model, batch))


def _optimizers(model: LlamaForCausalLM, phase: Phase) -> list[Optimizer]:
    """AdamW, and Muon for the layers' matrices if the phase has a rate for it."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    others = [
        weight for weight in model.parameters() if all(weight is not other for other in matrices)
    ]
    if phase.muon_rate is None:
        return [_adamw([*matrices, *others], phase)]
    muon = Muon(matrices, lr=phase.muon_rate, momentum=0.95, weight_decay=0.0)
    return [muon, _adamw(others, phase)]


def _adamw(weights: list[torch.nn.Parameter], phase: Phase) -> AdamW:
    return AdamW(weights, lr=phase.adamw_rate, betas=(0.9, 0.98), weight_decay=0.0)
