"""Evaluators: what turns a model in memory into responses. lm-eval's HFLM, so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class HfEvaluator:
    """transformers in this process, through lm-eval's HFLM.

    `batch_size` is how many prompts are answered at once; `max_length` the most tokens of
    prompt and answer together, None for the model's own limit. A longer prompt loses its
    beginning.
    """

    batch_size: int
    max_length: int | None

    def problems(self) -> list[str]:
        """What is wrong with the settings, `key=value: why; fix` each."""
        return [
            f"evaluator.{key}={value}: must be at least 1"
            for key, value in (("batch_size", self.batch_size), ("max_length", self.max_length))
            if value is not None and value < 1
        ]

    def spec(self) -> dict[str, Any]:
        """What the responses depend on: not the batch size."""
        return {"evaluator": "hf", "max_length": self.max_length}
