"""Prompts that begin alike: the same responses, with less computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from families import NO_HEAD_DIM
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import (
    AutoModelForCausalLM,
    GPTNeoConfig,
    LlamaConfig,
    Phi3Config,
    PretrainedConfig,
)

from aim_exp.checkpoint.live import LiveModel
from aim_exp.evaluate.fast.prefill import WORTH_A_PASS, shared_depth, tokens_computed
from aim_exp.evaluate.hf import LiveHFLM

WINDOWED = {"mistral", "gemma2", "gemma3_text", "gemma3"}
"""Their caches forget: nothing is shared."""
OWN_POSITIONS = {"qwen2_vl", "qwen2_5_vl", "llava"}
"""Generate from inputs that are more than text: transformers' own first pass."""
START = list(range(100, 120))
RESTS = [[40 + n, *range(200, 200 + n)] for n in (3, 5, 9, 4, 7, 12)]


def sizes(model: torch.nn.Module) -> list[tuple[int, ...]]:
    """The shapes of what the model will be given."""
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def test_every_family_answers_as_lm_evals_own_model(saved: tuple[str, Path]) -> None:
    kind, folder = saved
    live = LiveModel(folder / "base", "float32", "cpu")
    ours, theirs = (
        make(pretrained=live.model, tokenizer=live.tokenizer, batch_size=16, max_length=128)
        for make in (LiveHFLM, HFLM)
    )
    choices = [[5], [7, 8, 9], [11, 12]]
    requests = [(None, START + rest, choice) for rest in RESTS for choice in choices]
    generations = [
        Instance(
            "generate_until",
            {},
            (live.tokenizer.decode(START + rest), {"until": ["\n\n"], "max_gen_toks": 10}),
            0,
        )
        for rest in RESTS
    ]
    expected = theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    texts = theirs.generate_until(generations, disable_tqdm=True)

    seen = sizes(live.model)
    likelihoods = ours._loglikelihood_tokens(requests)
    assert len(likelihoods) == len(requests)
    for one, other in zip(likelihoods, expected, strict=True):
        assert one == (pytest.approx(other[0], rel=1e-5), other[1])
    first_rows = len({tuple(c) for _, c, _ in requests[:16]})
    assert seen[0][0] == (first_rows if kind in WINDOWED else 1)

    seen.clear()
    assert ours.generate_until(generations, disable_tqdm=True) == texts
    assert seen[0][0] == (len(RESTS) if kind in WINDOWED | OWN_POSITIONS else 1)


def slow_cost(prompts: Sequence[Sequence[int]], depth: int) -> int:
    """Tokens gone through: the different starts, and of every prompt the rest, padded."""
    starts = {tuple(prompt[:depth]) for prompt in prompts}
    return len(starts) * depth + len(prompts) * max(len(prompt) - depth for prompt in prompts)


def test_the_depth_is_the_cheapest_that_leaves_every_prompt_a_token() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = 0
    for _ in range(200):
        count, longest, words = torch.randint(1, 12, (3,), generator=generator).tolist()
        lengths = torch.randint(1, longest + 1, (count,), generator=generator)
        prompts = [
            torch.randint(1 + words // 4, (n,), generator=generator).tolist() for n in lengths
        ]
        costs = [slow_cost(prompts, depth) for depth in range(min(map(len, prompts)))]
        depth = shared_depth(prompts)
        if min(costs) <= (1 - WORTH_A_PASS) * costs[0]:
            assert costs[depth] == min(costs)
        else:
            assert depth == 0
        assert tokens_computed(prompts) == costs[depth]
        shared += depth > 0
    assert shared_depth([[1, 2], []]) == 0
    assert 20 < shared < 180  # both kinds were seen


def test_items_of_a_subject_are_asked_together(tiny_population: Path) -> None:
    """Two subjects, whose items alternate in length: a batch holds those of one."""
    live = LiveModel(tiny_population / "base", "float32", "cpu")
    lm = LiveHFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=4, max_length=128)
    subjects = (list(range(100, 140)), list(range(300, 340)))
    requests = [
        (None, [*subjects[n % 2], *range(400, 402 + n)], [choice])
        for n in range(8)
        for choice in (5, 6)
    ]
    seen = sizes(live.model)
    lm._loglikelihood_tokens(requests)
    starts, rests = seen[::2], seen[1::2]
    assert [rows for rows, _ in starts] == [1] * 4
    assert [rows for rows, _ in rests] == [2] * 4  # two choices of each of two items
    assert [tokens for _, tokens in rests] == sorted((tokens for _, tokens in rests), reverse=True)


ALONE: dict[str, PretrainedConfig] = {
    "frequencies that follow the length": Phi3Config(
        **NO_HEAD_DIM,
        original_max_position_embeddings=24,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 24,
            "short_factor": [1.0, 1.2, 1.5], "long_factor": [2.0, 3.0, 4.0],
        },
    ),
    "dynamic frequencies": LlamaConfig(
        **NO_HEAD_DIM,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    ),
    "a window that no cache shows": GPTNeoConfig(
        vocab_size=768, hidden_size=24, num_layers=2, num_heads=2, window_size=8,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=128,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ALONE)
def test_a_model_whose_rows_are_not_independent(kind: str, tokenizer) -> None:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(ALONE[kind]).eval()
        for parameter in model.parameters():
            parameter.data.mul_(6)  # sharp: another frequency gives another answer
    ours, theirs = (
        make(pretrained=model, tokenizer=tokenizer, batch_size=16, max_length=128)
        for make in (LiveHFLM, HFLM)
    )
    requests = [(None, START + rest, [5, 6]) for rest in RESTS]
    expected = theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    likelihoods = ours._loglikelihood_tokens(requests, disable_tqdm=True)
    for one, other in zip(likelihoods, expected, strict=True):
        assert one == (pytest.approx(other[0], rel=1e-5), other[1])
    generations = [
        Instance("generate_until", {}, (text, {"until": ["\n\n"], "max_gen_toks": 20}), 0)
        for text in (tokenizer.decode(START + rest) for rest in RESTS)
    ]
    assert ours.generate_until(generations, disable_tqdm=True) == (
        theirs.generate_until(generations, disable_tqdm=True)
    )
