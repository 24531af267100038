"""How numbers are written: percent, hypervolume gains, shares."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aim_exp.report.estimates import GAIN


@dataclass(frozen=True)
class Unit:
    """How numbers are written."""

    name: str
    factor: float = 1.0
    digits: int = 1
    signed: bool = False

    def write(self, value: float) -> str:
        """`47.3`, or with a sign `+1.8`; zero has none."""
        number = round(self.factor * value, self.digits) or 0.0
        return f"{number:{'+' if self.signed and number else ''}.{self.digits}f}"

    def margin(self, value: float | None) -> str:
        """`±4.1`, or nothing where it is unknown."""
        return "" if value is None else f"±{self.factor * value:.{self.digits}f}"


PERCENT = Unit("percent", 100)
VOLUME = Unit("hypervolume gain", digits=3)
"""d-th root of a volume; a digit more than in the paper's tables."""

SHARE = Unit("share", digits=3)


def unit(quantity: str, *, signed: bool = False) -> Unit:
    """How a quantity of `report.estimates` is written; `signed`: as a difference, in points."""
    return replace(VOLUME if quantity == GAIN else PERCENT, signed=signed)
