"""The diagonal of a language model's Fisher information (Matena and Raffel 2022, 2111.09832)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from aim_exp.errors import NonFiniteError


def fisher(
    model: Any, blocks: Tensor, advance: Callable[[int], None], *, seed: int, skip: int = 0
) -> dict[str, Tensor]:
    """E (d log p(y | x) / d theta)^2 by parameter, float32: the mean over `blocks`, [n, length].

    An example is a block, one at a time: x its tokens, y a next token at each position (the first
    `skip` left out) drawn from the model itself, by `seed`. `advance(1)` after each. Raises
    NonFiniteError where it is NaN or infinite.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    before = {name: p.requires_grad for name, p in parameters.items()}
    model.requires_grad_(True)
    try:
        for block in blocks:
            ids = block[None].to(model.device)
            with torch.enable_grad():  # which evaluators switch off for the whole process
                logits = model(input_ids=ids, use_cache=False).logits[0, skip:].float()
                chances = logits.detach().softmax(-1).cpu()
                labels = torch.multinomial(chances, 1, generator=generator)[:, 0]
                loss = cross_entropy(logits, labels.to(logits.device), reduction="sum")
            gradients = torch.autograd.grad(loss, [*parameters.values()], allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient.float().square_()
            advance(1)
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(before[name])
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise NonFiniteError(f"the gradient of {name} is NaN or infinite on this text")
    return {name: total.div_(len(blocks)).cpu() for name, total in sums.items()}
