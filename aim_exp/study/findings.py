"""What a study found: every number of its page, from the lock and the items that are kept.

An arm's number in a replicate is the mean over `over` and over the benchmarks that are averaged.
Differences are tested over replicates, as `statistics.replicates` has it. There is a verdict on the
primary and the secondary comparisons alone, once there are as many replicates as the lock asks for;
there is none on a design without test replicates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t

from aim_exp.errors import AimError
from aim_exp.statistics import (
    LEVEL,
    Floats,
    ReplicatedDifference,
    ReplicateTest,
    compare_replicates,
    equivalence,
    holm,
)
from aim_exp.store.study_lock import Contrast, StudyLock, read_lock
from aim_exp.study.design import Design
from aim_exp.study.replicates import Outcomes, Replicate, job_name, kept_folder, kept_replicates

LISTED = 12
"""Replicates that are shown one by one; of more, how many there are, and means."""

WITHOUT = "without "
"""How the outcome that leaves a benchmark out is called."""


def points(outcomes: Outcomes) -> Floats:
    """The scores, in percent; of each item, as all that is compared: the mean is the model's."""
    return 100 * outcomes.score


def gold(outcomes: Outcomes) -> Floats:
    """The log-likelihoods of the gold answers, in nats."""
    return outcomes.nats


def bits(outcomes: Outcomes) -> Floats:
    """Bits per byte of text."""
    return -outcomes.nats / math.log(2) / outcomes.bytes.mean()


@dataclass(frozen=True)
class Outcome:
    """What is compared: of each model and benchmark a value, averaged."""

    name: str
    value: Callable[[Outcomes], Floats]
    benchmarks: tuple[str, ...]
    over: tuple[int, ...]

    def items(self, replicate: Replicate, arm: str, benchmark: str) -> Floats:
        """An arm's in a replicate."""
        models = [replicate.outcomes[job_name(arm, number)] for number in self.over]
        return np.mean([self.value(model[benchmark]) for model in models], axis=0)

    def mean(self, replicates: Sequence[Replicate], arm: str) -> float:
        """An arm's over all."""
        names = self.benchmarks
        return float(
            np.mean([self.items(r, arm, name).mean() for r in replicates for name in names])
        )

    def test(
        self, lock: StudyLock, replicates: Sequence[Replicate], contrast: Contrast
    ) -> ReplicateTest:
        """One arm minus the other; items that all replicates share are a sample too."""
        tables, shared = [], []
        for name in self.benchmarks:
            shared.append(len({_items_digest(lock, each, name) for each in replicates}) == 1)
            differences = [
                self.items(each, contrast.arm, name) - self.items(each, contrast.against, name)
                for each in replicates
            ]
            means = [row if shared[-1] else row.mean(keepdims=True) for row in differences]
            tables.append(np.array(means))
        return compare_replicates(ReplicatedDifference(tables, any(shared)))


def findings(path: Path) -> str:
    """Tables in Markdown. Raises AimError where nothing is kept."""
    lock = read_lock(path)
    test = test_replicates(path, lock)
    outcomes = list(_outcomes(lock, test[0]))
    if not lock.test:
        several = [_comparisons(lock, test, outcomes, decided=None)] if len(test) > 1 else []
        parts = [_members(lock, test, outcomes[0]), *several, _best_arms(lock, test)]
        return "\n\n".join(parts)
    primary = outcomes[0].test(lock, test, lock.primary)
    size, most = size_by_rule(lock, primary), len(lock.test)
    fewest = min(_first(lock), most)
    words = size or (most if fewest == most else f"{fewest} to {most}")
    decided = size is not None and len(test) >= size
    return "\n\n".join(
        [
            f"Test replicates so far: {len(test)} of {words}.",
            _members(lock, test, outcomes[0]),
            _comparisons(lock, test, outcomes, decided=decided),
            *_moderator(lock, test, primary),
            _arms(lock, test, outcomes),
        ]
    )


def test_replicates(path: Path, lock: StudyLock) -> list[Replicate]:
    """Those kept that the study is about: of a design without any to test, of development.

    Raises AimError where there is none.
    """
    numbers = lock.test or lock.development
    if kept := [each for each in kept_replicates(path) if each.number in numbers]:
        return kept
    raise AimError(f"{kept_folder(path)}: holds no replicate; python -m aim_exp.study run")


def contrasts(lock: StudyLock, replicates: Sequence[Replicate]) -> dict[Contrast, ReplicateTest]:
    """Differences of averages: what the lock names, then the primary's arm minus every other."""
    arm = lock.primary.arm
    others = [Contrast(arm, other) for other in lock.design["arms"] if other != arm]
    average = next(_outcomes(lock, replicates[0]))
    named = (lock.primary, *lock.secondary, *others)
    return {each: average.test(lock, replicates, each) for each in dict.fromkeys(named)}


def contrast_name(contrast: Contrast) -> str:
    """As tables and figures have it."""
    return f"{contrast.arm} minus {contrast.against}"


def chosen(lock: StudyLock, replicates: Sequence[Replicate]) -> dict[str, list[str]]:
    """By kind (what stands before an arm's first `_`) the best arm for each entry of `over`.

    Of equal ones the first.
    """
    kinds: dict[str, list[str]] = {}
    for arm in lock.design["arms"]:
        kinds.setdefault(arm.partition("_")[0], []).append(arm)
    settings = list(_by_setting(lock, replicates[0]))
    return {
        kind: [max(arms, key=lambda arm: round(each.mean(replicates, arm), 9)) for each in settings]
        for kind, arms in kinds.items()
    }


def size_by_rule(lock: StudyLock, primary: ReplicateTest) -> int | None:
    """How many test replicates the study has; None before there are the design's `first`.

    By the deviation of the primary difference in the first ones, not by the difference: the fewest
    whose interval is no wider than the margin on either side, or all that were locked.
    """
    first = _first(lock)
    if primary.n < first:
        return None
    deviation = float(np.std(primary.values[:first], ddof=1))
    for n in range(first, len(lock.test)):
        if t.ppf((1 + LEVEL) / 2, n - 1) * deviation / math.sqrt(n) <= lock.margin:
            return n
    return len(lock.test)


def _first(lock: StudyLock) -> int:
    return Design(**lock.design).first


def _outcomes(lock: StudyLock, replicate: Replicate) -> Iterator[Outcome]:
    """The average first, then what else is compared."""
    over = tuple(range(len(lock.design["over"])))
    averaged = tuple(replicate.about["objectives"])
    tables = next(iter(replicate.outcomes.values()))
    yield Outcome("average, points", points, averaged, over)
    yield from _by_setting(lock, replicate)
    for left_out in averaged:
        others = tuple(name for name in averaged if name != left_out)
        yield Outcome(f"{WITHOUT}{left_out}, points", points, others, over)
    yield Outcome("gold answers, nats", gold, averaged, over)
    for name in tables:
        if name in averaged:
            continue
        if np.isnan(tables[name].bytes).any():
            yield Outcome(f"{name}, points", points, (name,), over)
        else:
            yield Outcome(f"{name}, bits per byte", bits, (name,), over)


def _by_setting(lock: StudyLock, replicate: Replicate) -> Iterator[Outcome]:
    """The average for each entry of `over`."""
    for number, overrides in enumerate(lock.design["over"]):
        name = " ".join(overrides).replace("method=", "")
        averaged = tuple(replicate.about["objectives"])
        yield Outcome(f"{name}, points", points, averaged, (number,))


def _comparisons(
    lock: StudyLock,
    test: Sequence[Replicate],
    outcomes: Sequence[Outcome],
    *,
    decided: bool | None,
) -> str:
    """With verdicts where it is `decided`; None: nothing is tested, so no column says of what."""
    family = [lock.primary, *lock.secondary]
    tests = contrasts(lock, test)
    ps = [p for each in family if (p := tests[each].p) is not None]
    adjusted = dict(zip(family, holm(ps), strict=True)) if len(ps) == len(family) else {}
    rows = []
    for contrast, result in tests.items():
        role, p, verdict = "", "", ""
        if contrast in family and decided is not None:
            role = "primary" if contrast == lock.primary else "secondary"
            p = f"{adjusted[contrast]:.3f}" if contrast in adjusted else ""
            verdict = "not yet"
            if decided:
                verdict = str(equivalence(result, lock.margin).verdict)
                if verdict in ("better", "worse") and adjusted[contrast] >= 1 - LEVEL:
                    verdict = "inconclusive"
        rows.append([contrast_name(contrast), role, *_numbers(result), p, verdict])
    of_others = [
        [outcome.name, *_numbers(outcome.test(lock, test, lock.primary))]
        for outcome in outcomes[1:]
    ]
    heads = ["difference", "95 % interval", "by replicate"]
    table = [["average, points", "", *heads, "p (Holm)", "verdict"], *rows]
    if decided is None:
        table = [[name, *numbers] for name, _, *numbers, _, _ in table]
    return "\n\n".join(
        [
            _table(table[0], table[1:]),
            f"The primary comparison, {contrast_name(lock.primary)}, in other outcomes:",
            _table(["outcome", *heads], of_others),
        ]
    )


def _moderator(
    lock: StudyLock, replicates: Sequence[Replicate], primary: ReplicateTest
) -> Iterator[str]:
    """Whether the primary difference goes with the size of the change; from three replicates on."""
    n, sizes = len(replicates), [_delta(lock, each) for each in replicates]
    if n < 3 or len(set(sizes)) == 1:
        return
    scaled = (np.array(sizes) - np.mean(sizes)) / np.std(sizes, ddof=1)
    values = np.array(primary.values)
    slope = float(scaled @ values) / (n - 1)
    residuals = values - values.mean() - slope * scaled
    stderr = math.sqrt(float(residuals @ residuals) / (n - 2) / (n - 1))
    half = float(t.ppf((1 + LEVEL) / 2, n - 2)) * stderr
    listed = " ".join(f"{size:.2f}" for size in sizes)
    spread = f"from {min(sizes):.2f} to {max(sizes):.2f}"
    yield (
        "The norm of the plain merge's change, by replicate: "
        f"{listed if n <= LISTED else spread}. Where it is a standard deviation larger, "
        f"the primary difference changes by {slope:+.2f} points (95 % interval "
        f"{slope - half:+.2f} to {slope + half:+.2f})."
    )


def _delta(lock: StudyLock, replicate: Replicate) -> float:
    """The norm of the change that the primary comparison's arm starts from, mean of `over`."""
    numbers = range(len(lock.design["over"]))
    jobs = [replicate.about["jobs"][job_name(lock.primary.arm, number)] for number in numbers]
    return float(np.mean([job["dose"]["delta"] for job in jobs]))


def _items_digest(lock: StudyLock, replicate: Replicate, benchmark: str) -> str | None:
    """Of what is asked; see `evaluate.spec`."""
    protocol = lock.items[str(replicate.number)][benchmark]
    _, digest = protocol.get("items_seed", (None, protocol["items"]))
    return digest


def _members(lock: StudyLock, replicates: Sequence[Replicate], average: Outcome) -> str:
    """Base and experts, and how many of the merges have the configuration that was locked."""
    locked = {(job.replicate, job_name(job.arm, job.over)): job.config for job in lock.jobs}
    names = [name for name in replicates[0].outcomes if "/" not in name]
    benchmarks = average.benchmarks
    rows, several = [], len(replicates) > LISTED
    for some in [replicates] if several else [[each] for each in replicates]:
        scores = [
            np.mean([points(each.outcomes[name][b]).mean() for each in some for b in benchmarks])
            for name in names
        ]
        n = sum(len(some[0].outcomes[names[0]][b].ids) for b in benchmarks)
        jobs = [(each.number, *item) for each in some for item in each.about["jobs"].items()]
        same = sum(locked[number, name] == job["config"] for number, name, job in jobs)
        commits = dict.fromkeys(str(each.about["commit"])[:7] for each in some)
        about = [str(n), f"{same} of {len(jobs)}", " ".join(commits)]
        label = f"{len(some)}, mean" if several else str(some[0].number)
        rows.append([label, *(f"{score:.1f}" for score in scores), *about])
    return _table(["replicate", *names, "items", "as locked", "commit"], rows)


def _arms(lock: StudyLock, replicates: Sequence[Replicate], outcomes: Sequence[Outcome]) -> str:
    rows, shown = [], [each for each in outcomes if not each.name.startswith(WITHOUT)]
    for arm in lock.design["arms"]:
        jobs = [r.about["jobs"][job_name(arm, n)] for r in replicates for n in outcomes[0].over]
        left = []
        for key in ("mean_r", "norm", "outputs"):
            doses = [
                job["dose"][key] for job in jobs if job["dose"] and job["dose"][key] is not None
            ]
            left.append(f"{np.mean(doses):.3f}" if len(doses) == len(jobs) else "")
        means = [outcome.mean(replicates, arm) for outcome in shown]
        rows.append([arm, *(f"{mean:.2f}" for mean in means), *left])
    heads = [outcome.name for outcome in shown]
    return _table(["arm", *heads, "mean r", "norm", "outputs"], rows)


def _best_arms(lock: StudyLock, replicates: Sequence[Replicate]) -> str:
    best = chosen(lock, replicates)
    settings = list(_by_setting(lock, replicates[0]))
    rows, kinds = [], {arm: arm.partition("_")[0] for arm in lock.design["arms"]}
    alternatives = Counter(kinds.values())
    for arm, kind in kinds.items():
        means = [f"{each.mean(replicates, arm):.1f}" for each in settings]
        best_in = [own == arm and alternatives[kind] > 1 for own in best[kind]]
        cells = [f"**{m}**" if bold else m for m, bold in zip(means, best_in, strict=True)]
        rows.append([arm, *cells])
    return _table(["arm", *(each.name for each in settings)], rows)


def _numbers(result: ReplicateTest) -> list[str]:
    interval = "" if result.low is None else f"{result.low:+.2f} to {result.high:+.2f}"
    values = " ".join(f"{value:+.2f}" for value in result.values)
    if result.n > LISTED:
        positive = sum(value > 0 for value in result.values)
        values = f"{positive} of {result.n} above 0"
    return [f"{result.difference:+.2f}", interval, values]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
