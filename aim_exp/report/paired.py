"""A model and its baseline on the same items: what the difference of their scores is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import chain
from statistics import fmean
from typing import Any

import numpy as np

from aim_exp.errors import AimError
from aim_exp.pareto import hypervolume_gains
from aim_exp.report.draws import Draw
from aim_exp.report.estimates import GAIN
from aim_exp.report.files import kept
from aim_exp.report.items import Source, read_items, strata
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

Sources = tuple[Source, ...]
"""A model on several benchmarks."""
VERSION = 2
"""Counts up when the tests' numbers change."""
FOLDER = "comparisons"
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
    """Of a model minus its baseline; None, or no entry, where `reasons` say why, if one is needed.

    A baseline that is no merge has no gain; answers that are all the same need no test.
    """

    average: PairedTest | None = None
    gain: PairedTest | None = None
    scores: Mapping[str, PairedTest] = field(default_factory=dict)
    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A reason and the quantities that it is so for."""


def evidence_of(after: Draw, before: Draw) -> Evidence:
    """What there is to compare."""
    return Evidence(_answers(before), _answers(after), after.record.population.merged)


def paired_tests(after: Draw, before: Draw, swaps: int, score_swaps: int) -> PairedTests:
    """Every test that the two models' items allow: of the average only if all objectives do.

    A randomisation test of the average or the gain takes `swaps`, one of a single benchmark
    `score_swaps` (`statistics.swaps_for`). What was compared before, in this sweep, is read.
    """
    pairs = after.sources, before.sources
    merges = [before, after] if before.is_merge else []
    rivals = [model for merge in merges for model in _rivals(merge)]
    spec = [
        *([[source.evidence, source.score] for source in model.values()] for model in pairs),
        [list(pair) for pair in pairs],
        list(after.objectives),
        [
            [[[source.evidence for source in model] for model in _rivals(m)], _corner(m)]
            for m in merges
        ],
        swaps,
        score_swaps,
    ]

    def make() -> dict[str, Any]:
        return asdict(_paired_tests(after, before, swaps, score_swaps))

    if not all(source.is_there for source in chain(*rivals, *(model.values() for model in pairs))):
        return _read(make())
    try:
        return _read(kept(after.job.shared / FOLDER, VERSION, spec, make))
    except (TypeError, KeyError, AttributeError):  # somebody wrote into the file
        return _read(make())


def _read(content: Any) -> PairedTests:
    def test(values: Any) -> PairedTest | None:
        return PairedTest(**values) if values else None

    scores = {name: PairedTest(**values) for name, values in content["scores"].items()}
    reasons = {why: tuple(names) for why, names in content["reasons"].items()}
    return PairedTests(test(content["average"]), test(content["gain"]), scores, reasons)


def _paired_tests(after: Draw, before: Draw, swaps: int, score_swaps: int) -> PairedTests:
    scores: dict[str, PairedTest] = {}
    reasons: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys([*after.sources, *before.sources]):
        try:
            scores[name] = _test(before.sources.get(name), after.sources.get(name), score_swaps)
        except AimError as error:
            reasons[str(error)] = (*reasons.get(str(error), ()), name)
    objectives, gain = after.objectives, None
    if not set(objectives) <= set(scores):
        return PairedTests(scores=scores, reasons=reasons)
    first, second = (tuple(m.sources[name] for name in objectives) for m in (before, after))
    average = _average(first, second, swaps)
    if before.is_merge:
        try:
            gain = _gain(before, after, swaps)
        except AimError as error:
            reasons[str(error)] = (GAIN,)
    return PairedTests(average, gain, scores, reasons)


def _answers(draw: Draw) -> tuple[str, ...]:
    return tuple(f"{name} {source.evidence}" for name, source in sorted(draw.sources.items()))


def _rivals(merge: Draw) -> list[Sources]:
    """The merge, and what its gain is measured against: base and the merged experts."""
    names = ("base", *merge.record.population.merged)
    members = [merge.job.sources[m.name] for m in merge.record.members if m.name in names]
    return [tuple(model[name] for name in merge.objectives) for model in (merge.sources, *members)]


def _corner(merge: Draw) -> list[float]:
    return [merge.record.benchmarks[name].reference_point for name in merge.objectives]


def _test(before: Source | None, after: Source | None, swaps: int) -> PairedTest:
    """On one benchmark: exact for answers that are right or wrong, else by resampling."""
    if before is None or after is None:
        raise AimError("only one of the two was scored on it")
    if before.measure != after.measure:
        raise AimError(f"another metric, {before.measure} and {after.measure}")
    first, second = read_items(before), read_items(after)
    both = strata([first, second])
    if first.are_right_or_wrong and second.are_right_or_wrong:
        return mcnemar(first.gained[:, 0], second.gained[:, 0])
    resampled, swapped = bootstrap_scores(both), swapped_scores(both, swaps)
    return resampling_test(after.score - before.score, _minus(resampled), _minus(swapped))


def _average(before: Sources, after: Sources, swaps: int) -> PairedTest:
    """Of the plain mean over benchmarks, whose items are drawn independently."""
    rng = np.random.default_rng(SEED)
    pairs = [_together(pair) for pair in zip(before, after, strict=True)]
    resampled = np.mean([bootstrap_scores(pair, rng=rng) for pair in pairs], axis=0)
    swapped = _swapped(before, after, swaps).mean(axis=-1)
    observed = fmean(source.score for source in after) - fmean(source.score for source in before)
    return resampling_test(observed, _minus(resampled), _minus(swapped))


def _gain(before: Draw, after: Draw, swaps: int) -> PairedTest:
    """Of the hypervolume gain.

    The bootstrap draws the items of both merges and of all members jointly; the swaps are of
    the two merges' answers, with the members as they are.
    """
    rng = np.random.default_rng(SEED)
    (first, *of_first), (second, *of_second) = _rivals(before), _rivals(after)
    models = list(dict.fromkeys([first, second, *of_first, *of_second]))
    observed = np.array([[source.score for source in model] for model in models])
    benchmarks = [_together(sources) for sources in zip(*models, strict=True)]
    resampled = _by_resample([bootstrap_scores(each, VOLUME_RESAMPLES, rng) for each in benchmarks])
    swapped = _swapped(first, second, swaps)

    def differences(merges: Floats, scores: Floats) -> Floats:
        """Of two merges [n, 2, benchmarks]; `scores` are [n or 1, models, benchmarks]."""
        gains = [
            hypervolume_gains(
                merges[:, number], scores[:, list(map(models.index, members))], corner
            )
            for number, members, corner in (
                (0, of_first, _corner(before)),
                (1, of_second, _corner(after)),
            )
        ]
        return gains[1] - gains[0]

    (difference,) = differences(observed[None, [0, 1]], observed[None])
    return resampling_test(
        difference,
        differences(resampled[:, :2], resampled),
        differences(swapped, observed[None]),
    )


@lru_cache(maxsize=1)
def _swapped(before: Sources, after: Sources, swaps: int) -> Floats:
    """[swaps, 2, benchmarks]: the scores of both with their answers swapped, for both tests."""
    rng = np.random.default_rng(SEED + 1)
    pairs = [_together(pair) for pair in zip(before, after, strict=True)]
    return _by_resample([swapped_scores(pair, swaps, rng) for pair in pairs])


def _by_resample(scores: Sequence[Floats]) -> Floats:
    """[resamples, models, benchmarks], without what rounding leaves outside [0, 1]."""
    return np.stack(scores, axis=-1).clip(0.0, 1.0)


def _together(models: Sequence[Source]) -> list[Stratum]:
    return strata([read_items(model) for model in models])


def _minus(scores: Floats) -> Floats:
    """Of [resamples, (before, after)]."""
    return scores[:, 1] - scores[:, 0]
