"""Runs against their twins, computed: differences, intervals, p values, and which claims hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from aim_exp.records import RunRecord
from aim_exp.report.compare.paired import GAIN, paired_tests
from aim_exp.report.compare.twins import PLAIN, find_twins
from aim_exp.report.models import Model
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import Settings, as_words, label
from aim_exp.report.summary import SHOWN, job_names
from aim_exp.statistics import LEVEL, PairedTest, holm

AVERAGE = "average"
UNITS = {GAIN: (1.0, 3)}
"""Factor and digits of a quantity that is no score, which are in points."""


class Verdict(StrEnum):
    """What may be said of a difference."""

    ABOVE = "above"
    BELOW = "below"
    NOISE = "not told from noise"
    UNTESTED = "not tested"


@dataclass(frozen=True)
class Difference:
    """A run minus its twin in one quantity; scores in [0, 1]."""

    quantity: str
    """`average`, `hypervolume gain`, or a benchmark."""
    value: float
    test: PairedTest | None = None
    """None where the items do not allow one."""
    adjusted_p: float | None = None
    """After Holm, over all differences of the same kind in the table."""

    @property
    def verdict(self) -> Verdict:
        """Above or below where the adjusted p says so, and the interval too.

        The two need not agree: the swaps that give a gain's p keep the members' scores as they
        are, the bootstrap that gives its interval draws them too, and a gain cannot fall below 0.
        """
        if self.test is None or self.adjusted_p is None:
            return Verdict.UNTESTED
        if self.adjusted_p >= 1 - LEVEL or self.may_be_zero:
            return Verdict.NOISE
        return Verdict.ABOVE if self.value > 0 else Verdict.BELOW

    @property
    def may_be_zero(self) -> bool:
        """Whether 0 lies in the interval, as printed."""
        if self.test is None:
            return True
        low, high = (float(self.number(end)) for end in (self.test.low, self.test.high))
        return low <= 0 <= high

    def number(self, value: float, *, sign: bool = True) -> str:
        """In points, or as hypervolume gains are written."""
        factor, digits = UNITS.get(self.quantity, (100.0, 1))
        number = round(factor * value, digits) or 0.0  # no zero has a sign
        return f"{number:{'+' if sign and number else ''}.{digits}f}"

    @property
    def interval(self) -> str:
        """`-0.9 to +4.6`, or nothing."""
        return f"{self.number(self.test.low)} to {self.number(self.test.high)}" if self.test else ""


@dataclass(frozen=True)
class Row:
    """A run and its twin."""

    job: Job
    twin: Job
    average: Difference
    gain: Difference | None
    scores: Mapping[str, Difference]
    reasons: Mapping[str, tuple[str, ...]]
    """Why some differences are not tested, with the benchmarks that it is so for."""


@dataclass(frozen=True)
class Group:
    """Runs with the same values of the settings that group them."""

    values: Settings
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Comparison:
    """Every run against its twin."""

    against: Settings
    settings: tuple[str, ...]
    """What names a row: the settings that vary, those that group first."""
    groups: tuple[Group, ...]
    alone: tuple[Job, ...]
    """Runs without a twin."""
    repeated: tuple[Job, ...]
    """Runs that an earlier one stands for: the same model on the same items."""

    @property
    def rows(self) -> list[Row]:
        """Of all groups."""
        return [row for group in self.groups for row in group.rows]

    @property
    def title(self) -> str:
        """`the plain merge`, or `method=ties`."""
        return _named(self.against)

    def label(self, row: Row) -> str:
        """A run in a few words."""
        return label(row.job.settings, self.settings)

    def sentence(self, row: Row) -> str:
        """`ties omega=0.4 is 1.8 points above its plain merge; 95 % interval ...: holds`."""
        difference = row.average
        size = difference.number(abs(difference.value), sign=False)
        direction = "above" if difference.value > 0 else "below"
        place = f"{size} points {direction}" if float(size) else "level with"
        text = f"{self.label(row)} is {place} {_named(self.against, 'its ')}"
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
        return f"{Verdict.NOISE} among {len(self.rows)} comparisons" if alone else Verdict.NOISE

    def omissions(self) -> list[str]:
        """What was not compared, and why, a line each."""
        reasons: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for reason, names in row.reasons.items():
                reasons.setdefault(reason, {}).update(dict.fromkeys(names))
        lines = [f"not tested: {why} ({', '.join(names)})" for why, names in reasons.items()]
        if self.alone:
            lines.append(f"no twin with {as_words(self.against)} for: {_folders(self.alone)}")
        if self.repeated:
            lines.append(
                f"the same model as an earlier run, counted once: {_folders(self.repeated)}"
            )
        return lines

    def summary(self) -> str:
        """`average above in 1, not told from noise in 2 (of 3)`."""
        counts = Counter(row.average.verdict for row in self.rows)
        parts = [f"{verdict} in {counts[verdict]}" for verdict in Verdict if counts[verdict]]
        return f"average {', '.join(parts)}, of {len(self.rows)}"


def compare_runs(
    results: Results, against: Settings = PLAIN, by: Sequence[str] = ()
) -> Comparison | None:
    """Every scored run against its twin, grouped by the settings `by`; None without any pair.

    Names are full ones, as `twins.parse_against` and `parse_names` give them.
    """
    twins = find_twins(results, against)
    if not twins.pairs:
        return None
    rows = _adjusted([_row(job, twin) for job, twin in twins.pairs])
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.job.settings.get(name, "") for name in by), []).append(row)
    return Comparison(
        against=against,
        settings=tuple(dict.fromkeys([*by, *results.varying])),
        groups=tuple(
            Group(dict(zip(by, values, strict=True)), tuple(members))
            for values, members in groups.items()
        ),
        alone=twins.alone,
        repeated=twins.repeated,
    )


def _row(job: Job, twin: Job) -> Row:
    after, before = job.merged, twin.merged
    assert after is not None, "twins are scored"
    assert before is not None, "twins are scored"
    tests = paired_tests(job, twin)
    return Row(
        job=job,
        twin=twin,
        average=_average(after, before, tests.average),
        gain=_gain(job.record, twin.record, tests.gain),
        scores={
            name: Difference(name, score.value - before.scores[name].value, tests.scores.get(name))
            for name, score in after.scores.items()
            if name in before.scores
        },
        reasons=tests.reasons,
    )


def _average(after: Model, before: Model, test: PairedTest | None) -> Difference:
    assert after.average is not None, "a scored model has a benchmark"
    assert before.average is not None, "a scored model has a benchmark"
    return Difference(AVERAGE, after.average.value - before.average.value, test)


def _gain(after: RunRecord, before: RunRecord, test: PairedTest | None) -> Difference | None:
    if after.hypervolume_gain is None or before.hypervolume_gain is None:
        return None
    return Difference(GAIN, after.hypervolume_gain - before.hypervolume_gain, test)


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """With Holm's p: over the averages, over the gains, and over all scores of all rows."""
    averages = iter(_holm([row.average for row in rows]))
    gains = iter(_holm([row.gain for row in rows if row.gain]))
    scores = iter(_holm([score for row in rows for score in row.scores.values()]))
    return [
        replace(
            row,
            average=next(averages),
            gain=next(gains) if row.gain else None,
            scores={name: next(scores) for name in row.scores},
        )
        for row in rows
    ]


def _holm(differences: Sequence[Difference]) -> list[Difference]:
    ps = iter(holm([each.test.p for each in differences if each.test]))
    return [replace(each, adjusted_p=next(ps)) if each.test else each for each in differences]


def _folders(jobs: Sequence[Job]) -> str:
    """Their names; of many, the number and the first few."""
    names = job_names(jobs)
    return names if len(jobs) <= SHOWN else f"{len(jobs)} runs ({names})"


def _named(against: Settings, article: str = "the ") -> str:
    return f"{article}plain merge" if against == PLAIN else as_words(against)
