"""Differences over replicates: what a method does on other populations, not on these weights.

A replicate is a value of the outermost seed that was drawn: a population, a set of items, else a
mask. What is drawn within it is averaged first. The rule is that of `statistics.replicates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from aim_exp.errors import AimError
from aim_exp.report.differences import AVERAGE, GAIN, Contrast, Differences
from aim_exp.report.draws import LEVELS, Draw, Level, Value, count_words, seed_of
from aim_exp.report.grouped import grouped
from aim_exp.report.items import read_items
from aim_exp.statistics import LEVEL, Floats, holm
from aim_exp.statistics.replicates import (
    Conclusion,
    Design,
    Equivalence,
    ReplicatedDifference,
    ReplicateTest,
    compare_replicates,
    equivalence,
)
from aim_exp.store.study_lock import Role, StudyLock


@dataclass(frozen=True)
class Replicated:
    """A merge minus its baseline, over replicates; scores and gains of [0, 1]."""

    key: str
    """The row's."""
    label: str
    """The same: without seeds."""
    against: str
    n: str
    """`8 populations`."""
    tests: Mapping[str, ReplicateTest]
    """By quantity: `AVERAGE`, `GAIN` between merges, then benchmarks."""
    adjusted_p: float | None = None
    """Of the average, after Holm over all merges against the same."""
    equivalence: Equivalence | None = None
    """Of the average, where a margin was given."""
    role: Role | None = None
    """In the study that was locked; None without one."""

    @property
    def verdict(self) -> Conclusion:
        """By the margin, if there is one; else by the adjusted p."""
        test = self.tests[AVERAGE]
        if self.equivalence and self.equivalence.verdict == Conclusion.EQUIVALENT:
            return Conclusion.EQUIVALENT
        if self.adjusted_p is None or self.adjusted_p >= 1 - LEVEL:
            return Conclusion.INCONCLUSIVE
        return Conclusion.BETTER if test.difference > 0 else Conclusion.WORSE


@dataclass(frozen=True)
class Claim:
    """What was fixed before there were results."""

    margin: float | None = None
    """A difference of averages, of [0, 1], below which none matters."""
    study: StudyLock | None = None
    """What is not in it is exploratory."""


NOTHING_FIXED = Claim()


def over_replicates(differences: Differences, claim: Claim = NOTHING_FIXED) -> list[Replicated]:
    """Of each merge with several replicates."""
    rows = grouped(
        ((each.merge.row.key, each.baseline.row.key), each) for each in differences.contrasts
    )
    every = [each for own in rows.values() if (each := _replicated(own, claim))]
    ps = {i: p for i, each in enumerate(every) if (p := each.tests[AVERAGE].p) is not None}
    adjusted = dict(zip(ps, holm(list(ps.values())), strict=True))
    return [replace(each, adjusted_p=adjusted.get(i)) for i, each in enumerate(every)]


def _replicated(contrasts: Sequence[Contrast], claim: Claim) -> Replicated | None:
    """None where nothing was drawn several times."""
    level, replicates = _replicates([contrast.draws for contrast in contrasts])
    if len(replicates) < 2:
        return None
    first, study = contrasts[0], claim.study
    roles = {study.role(*(draw.record.config for draw in each.draws))
             for each in contrasts} if study else {None}  # fmt: skip
    pairs = list(replicates.values())
    tests = _tests(pairs, first)
    margin = study.margin / 100 if claim.margin is None and study else claim.margin
    return Replicated(
        key=first.merge.row.key,
        label=first.merge.row.label,
        against=first.baseline.row.label,
        n=count_words(len(pairs), {seed_of(level, list(replicates)): len(pairs)}),
        tests=tests,
        equivalence=equivalence(tests[AVERAGE], margin) if margin else None,
        role=roles.pop() if len(roles) == 1 else Role.EXPLORATORY,  # unless all of it was locked
    )


Pair = tuple[Draw, Draw]
"""A merge and its baseline."""


def _replicates(pairs: Sequence[Pair]) -> tuple[Level, Mapping[Value, list[Pair]]]:
    """By the values of the outermost level that has several."""
    for level in LEVELS:
        values = grouped((pair[0].value(level), pair) for pair in pairs)
        if len(values) > 1:
            return level, values
    return LEVELS[0], {}


def _tests(replicates: Sequence[Sequence[Pair]], contrast: Contrast) -> dict[str, ReplicateTest]:
    tables: dict[str, Floats] = {}
    shared: dict[str, bool] = {}
    unknown: set[str] = set()
    names = [name for name in contrast.differences if name not in (AVERAGE, GAIN)]
    for name in names:
        try:
            tables[name], shared[name] = _table(replicates, name)
        except AimError:
            tables[name] = _means(replicates, lambda draw, n=name: draw.model.scores[n].value)
            shared[name] = False
            unknown.add(name)

    def test(benchmarks: Sequence[str]) -> ReplicateTest:
        data = [tables[name] for name in benchmarks]
        result = compare_replicates(
            ReplicatedDifference(data, any(shared[name] for name in benchmarks))
        )
        return _without_interval(result) if unknown.intersection(benchmarks) else result

    objectives = contrast.draws[0].objectives
    tests = {AVERAGE: test(objectives)}
    if GAIN in contrast.differences:
        gains = compare_replicates(ReplicatedDifference([_means(replicates, _gain)], False))
        own = not any(shared[name] for name in objectives) and not unknown
        tests[GAIN] = gains if own else _without_interval(gains)
    return tests | {name: test([name]) for name in names}


def _without_interval(test: ReplicateTest) -> ReplicateTest:
    """Where it is not known how much of a difference is the luck of the items."""
    return ReplicateTest(test.difference, test.values, Design.VALUES, test.deviation)


def _table(replicates: Sequence[Sequence[Pair]], name: str) -> tuple[Floats, bool]:
    """[replicates, items] where all share their items, else [replicates, 1]; whether they do.

    AimError where items are gone, or differ within a replicate.
    """
    rows, every = [], set()
    for pairs in replicates:
        shares = [[_item_shares(draw, name) for draw in pair] for pair in pairs]
        own = {ids for pair in shares for ids, _ in pair}
        if len(own) > 1:
            raise AimError("not the same items")
        every |= own
        rows.append(sum(after - before for (_, after), (_, before) in shares) / len(shares))
    if len(every) == 1:
        return np.stack(rows), True
    return np.array([[row.mean()] for row in rows]), False


def _item_shares(draw: Draw, name: str) -> tuple[tuple[tuple[str, int, str], ...], Floats]:
    """The items, and [items] of what each adds to the score: their mean is the score."""
    items = read_items(draw.sources[name])
    tasks, shares = np.array(items.tasks), np.zeros(len(items.ids))
    for task, weight in items.weights.items():
        own = tasks == task
        possible = np.maximum(items.possible[own].sum(axis=0), 1)
        shares[own] = weight * (items.gained[own] / possible).mean(axis=1)
    return items.ids, len(shares) * shares


def _means(replicates: Sequence[Sequence[Pair]], value: Callable[[Draw], float]) -> Floats:
    """[replicates, 1]: what a merge has more than its baseline, the mean over pairs."""
    return np.array([[fmean(value(a) - value(b) for a, b in pairs)] for pairs in replicates])


def _gain(draw: Draw) -> float:
    gain = draw.record.standing.hypervolume_gain
    assert gain is not None, "a contrast of gains has both"
    return gain
