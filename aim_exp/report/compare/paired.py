"""Two runs on the same items: what the difference of their scores is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean

import numpy as np

from aim_exp.errors import AimError
from aim_exp.pareto import hypervolume_gain
from aim_exp.records import RunRecord
from aim_exp.report.compare.items import MERGED, Source, read_items, sources, strata
from aim_exp.report.results import Job
from aim_exp.statistics import (
    SEED,
    Floats,
    PairedTest,
    Stratum,
    bootstrap_scores,
    mcnemar,
    resampling_test,
    swapped_scores,
)

GAIN = "hypervolume gain"
VOLUME_RESAMPLES = 2_000
"""Of the hypervolume gain: each takes 4 exact volumes, 0.1 ms in six dimensions."""


@dataclass(frozen=True)
class PairedTests:
    """Of a run minus its twin; None, or no entry, where there is none and `reasons` say why."""

    average: PairedTest | None = None
    gain: PairedTest | None = None
    scores: Mapping[str, PairedTest] = field(default_factory=dict)
    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A reason and the benchmarks that it is so for."""


def paired_tests(job: Job, twin: Job) -> PairedTests:
    """Every test that the two runs' items allow: of the average only if all benchmarks do."""
    after, before = (sources(each.record, MERGED) for each in (job, twin))
    scores: dict[str, PairedTest] = {}
    reasons: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys([*after, *before]):
        try:
            scores[name] = _test(before.get(name), after.get(name))
        except AimError as error:
            reasons[str(error)] = (*reasons.get(str(error), ()), name)
    if reasons:
        return PairedTests(scores=scores, reasons=reasons)
    average = _average(tuple(before[name] for name in after), tuple(after.values()))
    try:
        gain = _gain(_setting(job.record), _setting(twin.record))
    except AimError as error:
        return PairedTests(average, None, scores, {str(error): (GAIN,)})
    return PairedTests(average, gain, scores)


@dataclass(frozen=True)
class _Setting:
    """A merged model and what its gain is measured against: a source per benchmark each."""

    merged: tuple[Source, ...]
    members: tuple[tuple[Source, ...], ...]
    reference: tuple[float, ...]


def _setting(record: RunRecord) -> _Setting:
    """Base and the merged experts, as in the record's hypervolume gain."""
    names = ["base", *(record.population.get("merged") or ())]
    merged = sources(record, MERGED)
    members = [sources(record, name) for name in names]
    if any(member.keys() != merged.keys() for member in members):
        raise AimError("the population was not scored on the same benchmarks")
    return _Setting(
        tuple(merged.values()),
        tuple(tuple(member[name] for name in merged) for member in members),
        tuple(record.benchmarks[name].get("reference_point", 0.0) for name in merged),
    )


@cache
def _test(before: Source | None, after: Source | None) -> PairedTest:
    """On one benchmark: exact for answers that are right or wrong, else the bootstrap."""
    if before is None or after is None:
        raise AimError("only one of the two was scored on it")
    if before.metric != after.metric:
        raise AimError(f"another metric, {before.metric} and {after.metric}")
    first, second = read_items(before), read_items(after)
    both = strata([first, second])
    if first.are_right_or_wrong and second.are_right_or_wrong:
        return mcnemar(first.gained[:, 0], second.gained[:, 0])
    drawn, swapped = bootstrap_scores(both), swapped_scores(both)
    return resampling_test(after.score - before.score, _minus(drawn), _minus(swapped))


@cache
def _average(before: Sequence[Source], after: Sequence[Source]) -> PairedTest:
    """Of the plain mean over benchmarks, whose items are drawn independently."""
    rng = np.random.default_rng(SEED)
    pairs = [_together(pair) for pair in zip(before, after, strict=True)]
    drawn = np.mean([bootstrap_scores(pair, rng=rng) for pair in pairs], axis=0)
    swapped = np.mean([swapped_scores(pair, rng=rng) for pair in pairs], axis=0)
    observed = fmean(source.score for source in after) - fmean(source.score for source in before)
    return resampling_test(observed, _minus(drawn), _minus(swapped))


@cache
def _gain(after: _Setting, before: _Setting) -> PairedTest:
    """Of the hypervolume gain.

    The bootstrap draws the items of both merges and of all members jointly; the swaps are of
    the two merges' answers, with the members as they are.
    """
    rng = np.random.default_rng(SEED)
    models = list(dict.fromkeys([before.merged, after.merged, *before.members, *after.members]))
    observed = np.array([[source.score for source in model] for model in models])
    benchmarks = [_together(sources) for sources in zip(*models, strict=True)]
    drawn = _by_resample([bootstrap_scores(each, VOLUME_RESAMPLES, rng) for each in benchmarks])
    pairs = [_together(pair) for pair in zip(before.merged, after.merged, strict=True)]
    swapped = _by_resample([swapped_scores(each, VOLUME_RESAMPLES, rng) for each in pairs])

    rows_before, rows_after = (
        [models.index(member) for member in setting.members] for setting in (before, after)
    )

    def difference(first: Floats, second: Floats, scores: Floats) -> float:
        gain_after = hypervolume_gain(second, scores[rows_after], after.reference)
        return gain_after - hypervolume_gain(first, scores[rows_before], before.reference)

    return resampling_test(
        difference(observed[0], observed[1], observed),
        [difference(scores[0], scores[1], scores) for scores in drawn],
        [difference(first, second, observed) for first, second in swapped],
    )


def _by_resample(scores: Sequence[Floats]) -> Floats:
    """[resamples, models, benchmarks], without what rounding leaves outside [0, 1]."""
    return np.stack(scores, axis=-1).clip(0.0, 1.0)


def _together(models: Sequence[Source]) -> list[Stratum]:
    return strata([read_items(model) for model in models])


def _minus(scores: Floats) -> Floats:
    """After minus before, of [resamples, (before, after)]."""
    return scores[:, 1] - scores[:, 0]
