"""Models held against their baselines, item by item: differences, intervals, p, what holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from aim_exp.report.load import Job
from aim_exp.report.rows import AVERAGE, GAIN, Report, Row
from aim_exp.statistics import PairedTest

__all__ = ["AVERAGE", "GAIN", "Contrast", "Difference", "Differences", "Verdict"]


class Verdict(StrEnum):
    """What may be said of a difference."""

    ABOVE = "above"
    BELOW = "below"
    NOISE = "not told from noise"
    UNTESTED = "not tested"


@dataclass(frozen=True)
class Difference:
    """A model minus its baseline in one quantity; scores and gains of [0, 1]."""

    quantity: str
    """`AVERAGE`, `GAIN`, or a benchmark."""
    value: float
    test: PairedTest | None = None
    """Interval and p; None where the items do not allow one."""
    adjusted_p: float | None = None
    """After Holm, over all differences of the same kind against the same."""
    family: int = 0
    """How many those are; an identical comparison counts once."""

    @property
    def verdict(self) -> Verdict:
        """Above or below where the adjusted p says so, and the interval too."""
        raise NotImplementedError

    def number(self, value: float, *, sign: bool = True) -> str:
        """In points, or as hypervolume gains are written: `+1.8`."""
        raise NotImplementedError

    @property
    def interval(self) -> str:
        """`-0.9 to +4.6`, or nothing."""
        raise NotImplementedError


@dataclass(frozen=True)
class Contrast:
    """A run's merge and its baseline, on these weights."""

    job: Job
    row: Row
    """That the run is in."""
    label: str
    """`ties omega=0.4 seed=1 [2]`: the row's, with seeds, and with its group's number."""
    against: str
    """In the same way: `ties omega=null seed=1 [2]`, `base [2]`."""
    against_row: Row
    differences: Mapping[str, Difference]
    """By quantity: `AVERAGE`, `GAIN` where the baseline is a merge, then benchmarks."""
    same_answers: bool
    """Item by item: there is nothing to test."""
    reasons: Mapping[str, tuple[str, ...]]
    """Why some differences are not tested, with the quantities that it is so for."""

    @property
    def average(self) -> Difference:
        """Of the plain means over benchmarks."""
        return self.differences[AVERAGE]


@dataclass(frozen=True)
class Differences:
    """Every scored run against one kind of baseline."""

    title: str
    """`the plain merge`, `method=ties`, `base`."""
    own: str
    """The same of one run: `its plain merge`."""
    by: tuple[str, ...]
    """Settings, by full key, that group the contrasts; none: one group."""
    contrasts: tuple[Contrast, ...]
    alone: tuple[Job, ...]
    """Runs without a baseline."""

    def grouped(self) -> Sequence[tuple[Mapping[str, str], Sequence[Contrast]]]:
        """By the values of `by`."""
        raise NotImplementedError

    def sentence(self, contrast: Contrast) -> str:
        """`ties omega=0.4 is 1.8 points above its plain merge; 95 % interval ...: holds`."""
        raise NotImplementedError

    def omissions(self) -> list[str]:
        """What was not compared, and why, a line each."""
        raise NotImplementedError

    def summary(self) -> str:
        """`average above in 1, not told from noise in 2, of 3`; repeated ones count once."""
        raise NotImplementedError

    @property
    def family_words(self) -> str:
        """`12 averages, 12 gains, 72 scores on benchmarks (each kind by itself)`."""
        raise NotImplementedError


def differences(
    report: Report, against: Sequence[str] = (), by: Sequence[str] = ()
) -> tuple[Differences, ...]:
    """Every scored run against its baseline.

    `against` and `by` as on the command line. Without `against`: the plain merge, for the runs that
    have one, and then base. Empty where nothing can be compared. AimError names an unknown model or
    setting, and what there is.
    """
    raise NotImplementedError
