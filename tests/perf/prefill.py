"""The first pass over few-shot prompts, measured: `python -m tests.perf.prefill`.

`prefill`, which computes what the prompts share once, beside a pass over the padded batch, which
is what lm-eval's own model does; a random model of 20 M parameters, in turn, several rounds.
The logits of both must be equal up to rounding, or the command fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from aim_exp.evaluate.fast.prefill import empty_cache, padded, positions, prefill

PROMPTS, SHARED, OWN = 32, 600, (40, 100)


def main() -> None:
    """Both ways in turn; prints medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shared", type=int, default=SHARED, help="tokens that all begin with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = random_model()
    start = torch.randint(768, (options.shared,)).tolist()
    lengths = torch.randint(*OWN, (PROMPTS,)).tolist()
    prompts = [start + torch.randint(768, (length,)).tolist() for length in lengths]

    def shared() -> Tensor:
        return prefill(model, prompts, empty_cache(model)).outputs.logits

    def whole() -> Tensor:
        ids, mask = padded(prompts, "left", model.device)
        return model(
            input_ids=ids, attention_mask=mask, position_ids=positions(mask), logits_to_keep=1
        ).logits

    seconds: list[tuple[float, float]] = []
    with torch.no_grad():
        torch.testing.assert_close(shared(), whole(), rtol=1e-4, atol=1e-4)
        for _ in range(options.rounds):
            seconds.append((cpu_seconds(shared), cpu_seconds(whole)))
    ratio = statistics.median(whole / shared for shared, whole in seconds)
    print(
        f"{PROMPTS} prompts of {options.shared} shared and {OWN[0]} to {OWN[1]} own tokens, one "
        f"thread; {platform.machine()}, load {os.getloadavg()[0]:.1f}; medians of "
        f"{options.rounds} rounds"
    )
    for name, index in (("shared start once", 0), ("every prompt", 1)):
        print(f"{name:20}{statistics.median(pair[index] for pair in seconds):8.2f} CPU s")
    print(f"{'ratio':20}{ratio:8.2f}")


def random_model() -> LlamaForCausalLM:
    """20 M parameters."""
    config = LlamaConfig(
        vocab_size=768,
        hidden_size=512,
        intermediate_size=1400,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=4096,
    )
    return LlamaForCausalLM(config).eval()


def cpu_seconds(work: Callable[[], Tensor]) -> float:
    """Of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
