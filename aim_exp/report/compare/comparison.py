"""Runs against their baselines, computed: differences, intervals, p values, what holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from aim_exp.report.compare.baselines import PLAIN, Against, Baseline, find_pairs
from aim_exp.report.compare.paired import GAIN, Evidence, paired_tests
from aim_exp.report.models import Model
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import Settings, label
from aim_exp.report.studies import study_marks
from aim_exp.report.summary import SHOWN, job_names
from aim_exp.statistics import LEVEL, MOST_SWAPS, PairedTest, can_reject, holm, swaps_for
from aim_exp.store.records import RunRecord

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
    """A run minus its baseline in one quantity; scores in [0, 1]."""

    quantity: str
    """`average`, `hypervolume gain`, or a benchmark."""
    value: float
    test: PairedTest | None = None
    """None where the items do not allow one."""
    adjusted_p: float | None = None
    """After Holm, over the family: all differences of the same kind in the table."""
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
    """A run and its baseline."""

    job: Job
    baseline: Baseline
    evidence: Evidence
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
    """Every run against its baseline."""

    against: Against
    settings: tuple[str, ...]
    """What names a row: the settings that vary, those that group first."""
    groups: tuple[Group, ...]
    alone: tuple[Job, ...]
    """Runs without a baseline."""
    studies: Mapping[Path, str]
    """By a run's directory, its study's number (`[2]`); empty where there is one study."""

    @property
    def rows(self) -> list[Row]:
        """Of all groups."""
        return [row for group in self.groups for row in group.rows]

    @property
    def title(self) -> str:
        """`the plain merge`, `method=ties`, `base`."""
        return self.against.title

    def label(self, row: Row) -> str:
        """A run in a few words, seeds among them: `ties omega=0.4 seed=1 [2]`."""
        return self._numbered(label(row.job.settings, self.settings), row.job)

    def baseline_label(self, row: Row) -> str:
        """What it is compared with, in the same way: `ties omega=null seed=1 [2]`, `base [2]`."""
        return self._numbered(row.baseline.label(self.settings), row.baseline.job)

    def _numbered(self, text: str, job: Job) -> str:
        """With the number of its study, where there are several."""
        return f"{text} {self.studies.get(job.directory, '')}".rstrip()

    def sentence(self, row: Row) -> str:
        """`ties omega=0.4 is 1.8 points above its plain merge; 95 % interval ...: holds`."""
        difference = row.average
        size = difference.number(abs(difference.value), sign=False)
        direction = "above" if difference.value > 0 else "below"
        place = f"{size} points {direction}" if float(size) else "level with"
        text = f"{self.label(row)} is {place} {self.against.own}"
        if row.evidence.is_none:
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
    def families(self) -> dict[str, int]:
        """How many differences Holm's method corrects for, by kind: each is a family by itself."""
        kinds = {
            "averages": [row.average for row in self.rows],
            "gains": [row.gain for row in self.rows if row.gain],
            "scores on benchmarks": [each for row in self.rows for each in row.scores.values()],
        }
        sizes = {
            kind: max((each.family for each in found), default=0) for kind, found in kinds.items()
        }
        return {kind: size for kind, size in sizes.items() if size}

    @property
    def family_words(self) -> str:
        """`12 averages, 12 gains, 72 scores on benchmarks (each kind by itself)`."""
        kinds = [f"{size:,} {kind}" for kind, size in self.families.items()]
        return ", ".join(kinds) + " (each kind by itself)" * (len(kinds) > 1) or "0 tests"

    def omissions(self) -> list[str]:
        """What was not compared, and why, a line each."""
        reasons: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for reason, names in row.reasons.items():
                reasons.setdefault(reason, {}).update(dict.fromkeys(names))
        lines = [f"not tested: {why} ({', '.join(names)})" for why, names in reasons.items()]
        if self.alone:
            lines.append(f"no {self.against.sought} for: {_folders(self.alone)}")
        if same := [row.job for row in self.rows if row.evidence.is_none]:
            lines.append(f"the same answers as {self.title}, nothing to test: {_folders(same)}")
        if repeated := self._repeated:
            lines.append(
                "the same comparison as an earlier one, answer by answer, counted once: "
                f"{_folders(repeated)}"
            )
        lines += [
            f"no randomisation test can hold among {size:,} {kind}: {MOST_SWAPS:,} swaps are too "
            "few; compare fewer runs"
            for kind, size in self.families.items()
            if not can_reject(size)
        ]
        return lines

    @property
    def _repeated(self) -> list[Job]:
        """The runs whose comparison an earlier one equals."""
        first: dict[Evidence, Row] = {}
        tested = [row for row in self.rows if not row.evidence.is_none]
        return [row.job for row in tested if first.setdefault(row.evidence, row) is not row]

    def summary(self) -> str:
        """`average above in 1, not told from noise in 2, of 3`; repeated comparisons count once."""
        repeated = self._repeated
        counts = Counter(row.average.verdict for row in self.rows if row.job not in repeated)
        parts = [f"{verdict} in {counts[verdict]}" for verdict in Verdict if counts[verdict]]
        return f"average {', '.join(parts)}, of {counts.total()}"


def compare_runs(
    results: Results, against: Against = PLAIN, by: Sequence[str] = ()
) -> Comparison | None:
    """Every scored run against its baseline, grouped by the settings `by`; None without any pair.

    Names are full ones, as `baselines.parse_names` gives them.
    """
    found = find_pairs(results, against)
    if not found.pairs:
        return None
    scores = sum(len(job.record.scores or {}) for job, _ in found.pairs)
    swaps, score_swaps = swaps_for(len(found.pairs)), swaps_for(scores)
    rows = _adjusted([_row(*pair, swaps, score_swaps) for pair in found.pairs])
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
        alone=found.alone,
        studies=study_marks(results),
    )


def _row(job: Job, baseline: Baseline, swaps: int, score_swaps: int) -> Row:
    after, before = job.merged, baseline.model
    assert after is not None, "what is paired is scored"
    tests = paired_tests(job, baseline, swaps, score_swaps)
    return Row(
        job=job,
        baseline=baseline,
        evidence=tests.evidence,
        average=_average(after, before, tests.average),
        gain=_gain(job.record, baseline.job.record, tests.gain) if baseline.is_merge else None,
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
    averages = _holm({row.evidence: row.average for row in rows})
    gains = _holm({row.evidence: row.gain for row in rows})
    scores = _holm(
        {(row.evidence, name): each for row in rows for name, each in row.scores.items()}
    )
    return [
        replace(
            row,
            average=averages(row.average, row.evidence),
            gain=row.gain and gains(row.gain, row.evidence),
            scores={name: scores(each, (row.evidence, name)) for name, each in row.scores.items()},
        )
        for row in rows
    ]


def _holm(
    family: Mapping[Hashable, Difference | None],
) -> Callable[[Difference, Hashable], Difference]:
    """What completes each difference of a family, by what was answered: the same counts once."""
    tested = {key: each.test.p for key, each in family.items() if each and each.test}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))

    def complete(difference: Difference, key: Hashable) -> Difference:
        return replace(difference, adjusted_p=adjusted.get(key), family=len(tested))

    return complete


def _folders(jobs: Sequence[Job]) -> str:
    """Their names; of many, the number and the first few."""
    names = job_names(jobs)
    return names if len(jobs) <= SHOWN else f"{len(jobs)} runs ({names})"
