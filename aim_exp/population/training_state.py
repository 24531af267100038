"""The steps of a training, and how far it has come, so that one that is cut off goes on from there.

Weights and optimizers after whole steps, which is all that a step takes over from the one before:
the model comes out bit by bit as if nothing had happened. They lie in `MODEL.after-STEPS` until
`MODEL` does.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.optim import Optimizer

from aim_exp.console import progress
from aim_exp.store.files import publish, remove, unfinished
from aim_exp.store.integrity import damage, seal

STATE_FILE = "state.pt"
EVERY = 5.0
"""Seconds between two states, at least."""
SHARE = 0.05
"""Of the time that may go into keeping them."""


def take_steps(
    final: Path,
    model: torch.nn.Module,
    optimizers: Sequence[Optimizer],
    losses: Sequence[Callable[[], torch.Tensor]],
    rate_at: Callable[[float, int], float],
) -> None:
    """Train all parameters in place, a step for each of `losses`, which compute one each.

    `rate_at` makes of an optimizer's learning rate and a step's number the rate of that step. How
    far it has come is kept beside `final`, and taken up from there.
    """
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    first = _restore(final, model, optimizers)
    kept, pause = time.monotonic(), EVERY
    with progress(f"Training {final.name}", len(losses)) as advance:
        advance(first)
        for step in range(first, len(losses)):
            losses[step]().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, rate in zip(optimizers, rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate_at(rate, step)
                optimizer.step()
                optimizer.zero_grad()
            advance(1)
            if (began := time.monotonic()) - kept > pause:
                _keep(final, model, optimizers, step + 1)
                kept = time.monotonic()
                pause = max(EVERY, (kept - began) / SHARE)


def forget_states(final: Path) -> None:
    """Remove those of a model that is at `final` by now."""
    for state in _states(final):
        remove(state)


def _restore(final: Path, model: torch.nn.Module, optimizers: Sequence[Optimizer]) -> int:
    """Set them to the last state that is not damaged; after how many steps that was."""
    for state in _states(final):
        if damage(state, state.name) is None:
            content = torch.load(state / STATE_FILE, map_location="cpu", weights_only=True)
            model.load_state_dict(content["model"])
            for optimizer, its in zip(optimizers, content["optimizers"], strict=True):
                optimizer.load_state_dict(its)
            return _steps(state)
    return 0


def _keep(final: Path, model: torch.nn.Module, optimizers: Sequence[Optimizer], steps: int) -> None:
    content = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    earlier, state = _states(final), final.with_name(f"{final.name}.after-{steps}")
    with unfinished(state) as partial:
        partial.mkdir()  # nowhere, if another process took the training over
        torch.save(content, partial / STATE_FILE)
        seal(partial, state.name)
        publish(partial, state)
    for each in earlier:
        remove(each)


def _states(final: Path) -> list[Path]:
    """The last one first."""
    return sorted(final.parent.glob(f"{final.name}.after-*"), key=_steps, reverse=True)


def _steps(state: Path) -> int:
    return int(state.name.rpartition("-")[2])
