"""MATH as lm-eval's `minerva_math` scores it with math_verify.

That task itself cannot be loaded: its import asserts antlr 4.11, Hydra needs 4.9. Only its
second metric, which is not the headline, uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from math_verify import parse, verify


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 if math_verify finds the solution's answer in the response."""
    return {"math_verify": float(verify(parse(doc["solution"]), parse(results[0])))}
