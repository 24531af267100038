"""One tree of errors: what the user can mend, told in words that say how."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")
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
    if high == math.inf:
        return [f"{key}={value}: must be {'above' if open_low else 'at least'} {low:g}"]
    return [f"{key}={value}: must be in {'(' if open_low else '['}{low:g}, {high:g}]"]


@dataclass(frozen=True)
class Within:
    """In a setting's annotation: a finite number in [low, high] (or (low, high])."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def problems(self, key: str, value: Any) -> list[str]:
        """None for null, which the schema refuses where it may not be."""
        if value is None:
            return []
        return number_problem(key, value, self.low, self.high, open_low=self.open_low)


FLOAT32 = Within(-LARGEST, LARGEST)


class OneOf:
    """In a setting's annotation: one of these words, or of these and None."""

    def __init__(self, *known: str | None) -> None:
        self.known = known

    def problems(self, key: str, value: Any) -> list[str]:
        """What there is to choose from."""
        *most, last = ("null" if word is None else word for word in self.known)
        right = value in self.known
        return [] if right else [f"{key}={value}: must be {', '.join(most)} or {last}"]


def setting_limits(group: str, settings: Any) -> list[str]:
    """What is wrong with a dataclass of settings, by the limits in its fields' annotations."""
    hints = get_type_hints(type(settings), include_extras=True)
    return [
        problem
        for field in fields(settings)
        for limit in getattr(hints[field.name], "__metadata__", ())
        for problem in limit.problems(f"{group}.{field.name}", getattr(settings, field.name))
    ]


class ConfigError(AimError):
    """The configuration has problems, all of them listed, each `key=value: why; fix`."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def collect(problems: list[str], make: Callable[[], T]) -> T | None:
    """What `make` gives, or None with its problems added to `problems`."""
    try:
        return make()
    except ConfigError as error:
        problems += error.problems
    except AimError as error:
        problems.append(str(error))
    return None


class CheckpointError(AimError):
    """A checkpoint is missing, unreadable, or does not fit the others."""


class NonFiniteError(AimError):
    """NaN or infinity where a number was needed: weights, activations or scores."""


class EvaluationError(AimError):
    """A benchmark cannot be scored as asked."""
