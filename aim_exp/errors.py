"""One tree of errors: what the user can mend, told in words that say how."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

LARGEST = 3e38
"""Of what float32 can hold."""


class AimError(ValueError):
    """Something the user gave cannot be used. The message names it and the fix."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean ties?`, to go behind what says that `word` is not known; or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def first_line(error: BaseException) -> str:
    """What an error of others says first, with what a colon there announces; or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__


def number_problem(
    key: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> list[str]:
    """A problem if `value` is no finite number in [low, high] (or (low, high])."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [f"{key}={value}: must be a number"]
    inside = (low < value if open_low else low <= value) and value <= high
    if math.isfinite(value) and inside:
        return []
    if low == -math.inf:
        return [f"{key}={value}: must be finite"]
    return [f"{key}={value}: must be in {'(' if open_low else '['}{low:g}, {high:g}]"]


class ConfigError(AimError):
    """The configuration has problems, all of them listed, each `key=value: why; fix`."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class CheckpointError(AimError):
    """A checkpoint is missing, unreadable, or does not fit the others."""


class NonFiniteError(AimError):
    """NaN or infinity where a number was needed: weights, activations or scores."""


class EvaluationError(AimError):
    """A benchmark cannot be scored as asked."""
