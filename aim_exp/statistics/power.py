"""The smallest difference that a comparison would have seen."""

from __future__ import annotations

import math
from functools import cache

from aim_exp.statistics.paired import LEVEL

POWER = 0.8
"""The chance of seeing the smallest detectable difference, by a two-sided test at 1 - `LEVEL`."""
DISCORDANCES = (0.05, 0.1, 0.2)
"""Shares of items that two models answer differently: usual ones, where no answers are at hand."""


def smallest_detectable(deviation: float, n: int) -> float:
    """The difference that a paired t test of `n` values would see with `POWER`.

    `deviation` is that between the paired differences: of the items, or of the replicates. It is
    found on t's noncentral distribution; infinite for a single value.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    if n < 2:
        return math.inf
    if deviation == 0:
        return 0.0
    critical = float(t.ppf((1 + LEVEL) / 2, n - 1))

    def lacking(shift: float) -> float:
        """In standard errors; the other tail is as good as empty."""
        return float(nct.sf(critical, n - 1, shift)) - POWER

    shift = float(brentq(lacking, 0.0, 10 * critical))  # pyright: ignore[reportArgumentType]
    return shift * deviation / math.sqrt(n)


@cache
def detectable_at_discordance(discordance: float, items: int) -> float:
    """The same for two accuracies on `items` items, of which the models differ in a share.

    The variance of a difference d is that share less d^2 (Connor 1987).
    """
    shift = smallest_detectable(1.0, items) * math.sqrt(items)
    return math.sqrt(discordance * shift**2 / (items + shift**2))
