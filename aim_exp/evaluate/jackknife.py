"""Standard errors of aggregates that are no means, for which lm-eval knows none."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BLOCKS = 100
"""At most this many aggregations; the error is then known to about 7 %."""


def jackknife_stderr(
    aggregate: Callable[[Sequence[Any]], float], items: Sequence[Any]
) -> float | None:
    """The error of `aggregate(items)` by leaving out one random block of items at a time.

    Exact for a mean if each block is one item; Efron & Tibshirani (1993), chapter 11. None
    if there are too few items to leave some out.
    """
    blocks = min(len(items), BLOCKS)
    if blocks < 2:
        return None
    block_of = np.random.default_rng(0).permutation(len(items)) % blocks
    values = [
        aggregate([item for item, own in zip(items, block_of, strict=True) if own != block])
        for block in range(blocks)
    ]
    return float(np.sqrt((blocks - 1) * np.var(values)))
