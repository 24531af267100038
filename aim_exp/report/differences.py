"""Models held against their baselines, item by item: differences, intervals, p, what holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from statistics import fmean

from aim_exp.errors import AimError
from aim_exp.report.baselines import (
    PLAIN,
    Against,
    Candidate,
    base_of,
    find_pairs,
    parse_against,
    parse_names,
)
from aim_exp.report.draws import Draw
from aim_exp.report.grouped import grouped
from aim_exp.report.load import Job
from aim_exp.report.paired import VOLUME_RESAMPLES, Evidence, PairedTests, evidence_of, paired_tests
from aim_exp.report.rows import AVERAGE, GAIN, Report, named
from aim_exp.report.units import unit
from aim_exp.statistics import LEVEL, MOST_SWAPS, PairedTest, can_reject, holm, swaps_for

__all__ = [
    "AVERAGE", "GAIN", "VOLUME_RESAMPLES",
    "Contrast", "Difference", "Differences", "Verdict", "differences",
]  # fmt: skip

SCORES = "scores"
KINDS = {AVERAGE: "averages", GAIN: "gains", SCORES: "scores on benchmarks"}
"""Differences that are adjusted together."""


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
        """Above or below where the adjusted p says so, and the interval too.

        The two need not agree: the swaps that give a gain's p keep the members' scores as they
        are, the bootstrap that gives its interval draws them too, and a gain cannot fall below 0.
        """
        if self.test is None or self.adjusted_p is None:
            return Verdict.UNTESTED
        low, high = (float(self.number(end)) for end in (self.test.low, self.test.high))
        if self.adjusted_p >= 1 - LEVEL or low <= 0 <= high:  # as printed
            return Verdict.NOISE
        return Verdict.ABOVE if self.value > 0 else Verdict.BELOW

    @property
    def holds(self) -> bool:
        return self.verdict in (Verdict.ABOVE, Verdict.BELOW)

    def number(self, value: float, *, sign: bool = True) -> str:
        """In points, or as hypervolume gains are written: `+1.8`."""
        return unit(self.quantity, signed=sign).write(value)

    @property
    def interval(self) -> str:
        """`-0.9 to +4.6`, or nothing."""
        return f"{self.number(self.test.low)} to {self.number(self.test.high)}" if self.test else ""


@dataclass(frozen=True)
class Contrast:
    """A merge and its baseline, on these weights."""

    merge: Candidate
    baseline: Candidate
    label: str
    """`ties omega=0.4 seed=1 [2]`: the row's, with seeds, and with its group's number."""
    against: str
    """In the same way: `ties omega=null seed=1 [2]`, `base [2]`."""
    evidence: Evidence
    differences: Mapping[str, Difference]
    """By quantity: `AVERAGE`, `GAIN` where the baseline is a merge, then benchmarks."""
    reasons: Mapping[str, tuple[str, ...]]
    """Why some differences are not tested, with the quantities that it is so for."""

    @property
    def job(self) -> Job:
        """That made the merge."""
        return self.merge.draw.job

    @property
    def draws(self) -> tuple[Draw, Draw]:
        """The merge's and its baseline's."""
        return self.merge.draw, self.baseline.draw

    @property
    def average(self) -> Difference:
        return self.differences[AVERAGE]

    @property
    def same_answers(self) -> bool:
        """Item by item: there is nothing to test."""
        return self.evidence.is_none


@dataclass(frozen=True)
class Differences:
    """Every scored merge against one kind of baseline."""

    title: str
    """`the plain merge`, `method=ties`, `base`."""
    own: str
    """The same of one merge: `its plain merge`."""
    sought: str
    """`twin with omega=null`."""
    by: tuple[str, ...]
    """Settings, by full key, that group the contrasts; none: one group."""
    contrasts: tuple[Contrast, ...]
    alone: tuple[Job, ...]
    """Runs without a baseline."""

    def grouped(self) -> Sequence[tuple[Mapping[str, str], Sequence[Contrast]]]:
        """By the values of `by`, in the order of the runs."""
        groups = grouped(
            (tuple(each.merge.settings.get(name, "") for name in self.by), each)
            for each in self.contrasts
        )
        return [(dict(zip(self.by, values, strict=True)), own) for values, own in groups.items()]

    def sentence(self, contrast: Contrast) -> str:
        """`ties omega=0.4 is 1.8 points above its plain merge; 95 % interval ...: holds`."""
        difference = contrast.average
        size = difference.number(abs(difference.value), sign=False)
        direction = "above" if difference.value > 0 else "below"
        place = f"{size} points {direction}" if float(size) else "level with"
        text = f"{contrast.label} is {place} {self.own}"
        if contrast.same_answers:
            return f"{text}: it gives the same answers"
        if difference.test is None:
            return f"{text}; {difference.verdict}"
        interval = f"{100 * LEVEL:.0f} % interval {difference.interval}"
        return f"{text}; {interval}: {self._held(difference, difference.test)}"

    def _held(self, difference: Difference, test: PairedTest) -> str:
        if difference.verdict != Verdict.NOISE:
            return "holds"
        if difference.adjusted_p is not None and difference.adjusted_p < 1 - LEVEL:
            return f"{Verdict.NOISE}, as the interval has 0 in it"
        alone = test.p < 1 - LEVEL
        return f"{Verdict.NOISE} among {difference.family} comparisons" if alone else Verdict.NOISE

    @property
    def families(self) -> Mapping[str, int]:
        """How many differences Holm's method corrects for, by kind: each is a family by itself."""
        every = (pair for each in self.contrasts for pair in each.differences.items())
        sizes = grouped((_kind(quantity), difference.family) for quantity, difference in every)
        largest = {KINDS[kind]: max(sizes.get(kind, [0])) for kind in KINDS}
        return {kind: size for kind, size in largest.items() if size}

    @property
    def family_words(self) -> str:
        """`12 averages, 12 gains, 72 scores on benchmarks (each kind by itself)`."""

        def counted(size: int, first: str, *rest: str) -> str:
            return " ".join([f"{size:,}", first if size > 1 else first.removesuffix("s"), *rest])

        kinds = [counted(size, *kind.split()) for kind, size in self.families.items()]
        return ", ".join(kinds) + " (each kind by itself)" * (len(kinds) > 1) or "0 tests"

    def omissions(self) -> list[str]:
        """What was not compared, and why, a line each."""
        reasons = grouped(pair for each in self.contrasts for pair in each.reasons.items())
        lines = [
            f"not tested: {why} ({', '.join(dict.fromkeys(chain(*names)))})"
            for why, names in reasons.items()
        ]
        if self.alone:
            lines.append(f"no {self.sought} for: {named(self.alone)}")
        if same := [contrast.job for contrast in self.contrasts if contrast.same_answers]:
            lines.append(f"the same answers as {self.title}, nothing to test: {named(same)}")
        if repeated := [contrast.job for contrast in self._repeated]:
            lines.append(
                "the same comparison as an earlier one, answer by answer, counted once: "
                f"{named(repeated)}"
            )
        lines += [
            f"no randomisation test can hold among {size:,} {kind}: {MOST_SWAPS:,} swaps are too "
            "few; compare fewer runs"
            for kind, size in self.families.items()
            if not can_reject(size)
        ]
        return lines

    @property
    def _repeated(self) -> list[Contrast]:
        """Those that an earlier one equals."""
        first: dict[Evidence, Contrast] = {}
        tested = [contrast for contrast in self.contrasts if not contrast.same_answers]
        return [c for c in tested if first.setdefault(c.evidence, c) is not c]

    def summary(self) -> str:
        """`average above in 1, not told from noise in 2, of 3`; repeated ones count once."""
        repeated = {id(contrast) for contrast in self._repeated}
        counts = Counter(c.average.verdict for c in self.contrasts if id(c) not in repeated)
        parts = [f"{verdict} in {counts[verdict]}" for verdict in Verdict if counts[verdict]]
        return f"average {', '.join(parts)}, of {counts.total()}"


def differences(
    report: Report, against: Sequence[str] = (), by: Sequence[str] = ()
) -> tuple[Differences, ...]:
    """Every scored merge against its baseline.

    `against` and `by` as on the command line. Without `against`: the plain merge, for the merges
    that have one, and then base. Empty where nothing can be compared, and nothing was asked for.
    AimError names an unknown model or setting, and what there is.
    """
    names = parse_names(report, "--by", by)
    if against:
        chosen = parse_against(report, against)
        compared = _differences(report, chosen, names)
        if compared is None:
            raise AimError(
                f"--against {chosen.sought}: no scored run has one; runs that differ in several "
                "settings need all of them, each with --against, or the name of a run"
            )
        return (compared,)
    both = (_differences(report, each, names) for each in (PLAIN, base_of(report)))
    return tuple(each for each in both if each)


def _differences(report: Report, against: Against, by: tuple[str, ...]) -> Differences | None:
    """None without any pair."""
    pairs, alone = find_pairs(report, against)
    if not pairs:
        return None
    scores = sum(len(merge.draw.model.scores) for merge, _ in pairs)
    swaps, score_swaps = swaps_for(len(pairs)), swaps_for(scores)
    contrasts = [_contrast(report, merge, base, swaps, score_swaps) for merge, base in pairs]
    return Differences(
        title=against.title,
        own=against.own,
        sought=against.sought,
        by=by,
        contrasts=tuple(_adjusted(contrasts)),
        alone=tuple(merge.draw.job for merge in alone),
    )


def _contrast(
    report: Report, merge: Candidate, baseline: Candidate, swaps: int, score_swaps: int
) -> Contrast:
    evidence = evidence_of(merge.draw, baseline.draw)
    tests = PairedTests()
    if not evidence.is_none:
        tests = paired_tests(merge.draw, baseline.draw, swaps, score_swaps)
    after, before = merge.draw.model.scores, baseline.draw.model.scores
    averages = [fmean(draw.model.scores[name].value for name in draw.objectives)
                for draw in (merge.draw, baseline.draw)]  # fmt: skip
    quantities = [Difference(AVERAGE, averages[0] - averages[1], tests.average)]
    gains = [draw.record.standing.hypervolume_gain for draw in (merge.draw, baseline.draw)]
    if baseline.draw.is_merge and gains[0] is not None and gains[1] is not None:
        quantities.append(Difference(GAIN, gains[0] - gains[1], tests.gain))
    quantities += [
        Difference(name, score.value - before[name].value, tests.scores.get(name))
        for name, score in after.items()
        if name in before
    ]
    return Contrast(
        merge=merge,
        baseline=baseline,
        label=merge.label(report) + merge.group.mark,
        against=baseline.label(report) + baseline.group.mark,
        evidence=evidence,
        differences={each.quantity: each for each in quantities},
        reasons=tests.reasons,
    )


def _adjusted(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """With Holm's p: over the averages, over the gains, and over all scores of all contrasts.

    What was answered alike is one comparison.
    """
    families: dict[str, dict[Hashable, float]] = {}
    for contrast in contrasts:
        for quantity, difference in contrast.differences.items():
            if difference.test:
                family = families.setdefault(_kind(quantity), {})
                family[contrast.evidence, quantity] = difference.test.p
    adjusted = {
        comparison: {"adjusted_p": p, "family": len(family)}
        for family in families.values()
        for comparison, p in zip(family, holm(list(family.values())), strict=True)
    }

    def complete(contrast: Contrast) -> Contrast:
        own = {
            quantity: replace(difference, **adjusted.get((contrast.evidence, quantity), {}))
            for quantity, difference in contrast.differences.items()
        }
        return replace(contrast, differences=own)

    return list(map(complete, contrasts))


def _kind(quantity: str) -> str:
    return quantity if quantity in (AVERAGE, GAIN) else SCORES
