"""A run and its baseline on the same items: what the difference of their scores is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from statistics import fmean

import numpy as np

from aim_exp.errors import AimError
from aim_exp.pareto import hypervolume_gains
from aim_exp.report.compare.baselines import Baseline
from aim_exp.report.compare.items import MERGED, Source, digest, read_items, sources, strata
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
from aim_exp.store.records import RunRecord

GAIN = "hypervolume gain"
Sources = tuple[Source, ...]
"""A model on several benchmarks."""
VOLUME_RESAMPLES = 2_000
"""Of a gain's interval: each draws the items of both merges and of all members."""


@dataclass(frozen=True)
class Evidence:
    """What two models answered, by benchmark: the same comparison has the same evidence."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    merged: tuple[str, ...]
    """The experts that the gains are measured against."""

    @property
    def is_none(self) -> bool:
        """Whether the two answered alike, every item of every benchmark."""
        return self.before == self.after


@dataclass(frozen=True)
class PairedTests:
    """Of a run minus its baseline; None, or no entry, where `reasons` say why, if one is needed.

    A baseline that is no merge has no gain; answers that are all the same need no test.
    """

    evidence: Evidence
    average: PairedTest | None = None
    gain: PairedTest | None = None
    scores: Mapping[str, PairedTest] = field(default_factory=dict)
    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A reason and the benchmarks that it is so for."""


def paired_tests(job: Job, baseline: Baseline, swaps: int, score_swaps: int) -> PairedTests:
    """Every test that the two models' items allow: of the average only if all benchmarks do.

    A randomisation test of the average or the gain takes `swaps`, one of a single benchmark
    `score_swaps` (`statistics.swaps_for`).
    """
    after = sources(job.record, MERGED)
    before = sources(baseline.job.record, baseline.model.name)
    evidence = Evidence(
        _answers(baseline.job, baseline.model.name, before),
        _answers(job, MERGED, after),
        tuple(job.record.population.get("merged") or ()),
    )
    if evidence.is_none:
        return PairedTests(evidence)
    scores: dict[str, PairedTest] = {}
    reasons: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys([*after, *before]):
        try:
            scores[name] = _test(before.get(name), after.get(name), score_swaps)
        except AimError as error:
            reasons[str(error)] = (*reasons.get(str(error), ()), name)
    if reasons:
        return PairedTests(evidence, scores=scores, reasons=reasons)
    pair = tuple(before[name] for name in after), tuple(after.values())
    average = _average(*pair, swaps)
    if not baseline.is_merge:
        return PairedTests(evidence, average, None, scores)
    try:
        gain = _gain(_setting(baseline.job.record), _setting(job.record), swaps)
    except AimError as error:
        return PairedTests(evidence, average, None, scores, {str(error): (GAIN,)})
    return PairedTests(evidence, average, gain, scores)


def _answers(job: Job, model: str, found: Mapping[str, Source]) -> tuple[str, ...]:
    """By benchmark; what is gone is like nothing else."""
    gone = f"of {model} in {job.directory}"
    return tuple(
        f"{name} {source.metric} {digest(source.file) or gone}"
        for name, source in sorted(found.items())
    )


@dataclass(frozen=True)
class _Setting:
    """A merged model and what its gain is measured against: a source per benchmark each."""

    merged: Sources
    members: tuple[Sources, ...]
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
def _test(before: Source | None, after: Source | None, swaps: int) -> PairedTest:
    """On one benchmark: exact for answers that are right or wrong, else by resampling."""
    if before is None or after is None:
        raise AimError("only one of the two was scored on it")
    if before.metric != after.metric:
        raise AimError(f"another metric, {before.metric} and {after.metric}")
    first, second = read_items(before), read_items(after)
    both = strata([first, second])
    if first.are_right_or_wrong and second.are_right_or_wrong:
        return mcnemar(first.gained[:, 0], second.gained[:, 0])
    drawn, swapped = bootstrap_scores(both), swapped_scores(both, swaps)
    return resampling_test(after.score - before.score, _minus(drawn), _minus(swapped))


@cache
def _average(before: Sources, after: Sources, swaps: int) -> PairedTest:
    """Of the plain mean over benchmarks, whose items are drawn independently."""
    rng = np.random.default_rng(SEED)
    pairs = [_together(pair) for pair in zip(before, after, strict=True)]
    drawn = np.mean([bootstrap_scores(pair, rng=rng) for pair in pairs], axis=0)
    swapped = _swapped(before, after, swaps).mean(axis=-1)
    observed = fmean(source.score for source in after) - fmean(source.score for source in before)
    return resampling_test(observed, _minus(drawn), _minus(swapped))


@cache
def _gain(before: _Setting, after: _Setting, swaps: int) -> PairedTest:
    """Of the hypervolume gain.

    The bootstrap draws the items of both merges and of all members jointly; the swaps are of
    the two merges' answers, with the members as they are.
    """
    rng = np.random.default_rng(SEED)
    models = list(dict.fromkeys([before.merged, after.merged, *before.members, *after.members]))
    observed = np.array([[source.score for source in model] for model in models])
    benchmarks = [_together(sources) for sources in zip(*models, strict=True)]
    drawn = _by_resample([bootstrap_scores(each, VOLUME_RESAMPLES, rng) for each in benchmarks])
    swapped = _swapped(before.merged, after.merged, swaps)

    def differences(first: Floats, second: Floats, scores: Floats) -> Floats:
        """Of two merges [n, benchmarks]; `scores` are [n or 1, models, benchmarks]."""
        gains = [
            hypervolume_gains(
                merged,
                scores[:, [models.index(member) for member in setting.members]],
                setting.reference,
            )
            for merged, setting in ((first, before), (second, after))
        ]
        return gains[1] - gains[0]

    (difference,) = differences(observed[[0]], observed[[1]], observed[None])
    return resampling_test(
        difference,
        differences(drawn[:, 0], drawn[:, 1], drawn),
        differences(swapped[:, 0], swapped[:, 1], observed[None]),
    )


@lru_cache(maxsize=1)
def _swapped(before: Sources, after: Sources, swaps: int) -> Floats:
    """[swaps, 2, benchmarks]: the scores of both with their answers swapped, for all tests."""
    rng = np.random.default_rng(SEED + 1)
    pairs = [_together(pair) for pair in zip(before, after, strict=True)]
    return _by_resample([swapped_scores(pair, swaps, rng) for pair in pairs])


def _by_resample(scores: Sequence[Floats]) -> Floats:
    """[resamples, models, benchmarks], without what rounding leaves outside [0, 1]."""
    return np.stack(scores, axis=-1).clip(0.0, 1.0)


def _together(models: Sequence[Source]) -> list[Stratum]:
    return strata([read_items(model) for model in models])


def _minus(scores: Floats) -> Floats:
    """After minus before, of [resamples, (before, after)]."""
    return scores[:, 1] - scores[:, 0]
