"""Seeds: draws where every model has the same ones, settings that tell runs apart where not.

A mean over three populations and a score on one of them differ by the populations too: a change
from one to the other may have the wrong sign. So models are averaged over a seed only where it is
balanced: everything that depends on it was scored with the same values, and with every
combination where several seeds vary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

from aim_exp.report.models import asked, benchmarks
from aim_exp.report.results import Job
from aim_exp.report.settings import label
from aim_exp.store.keys import canonical_json

POPULATION = "population.seed"
SEEDS = {POPULATION: "population", "seed": "seed", "calibration.seed": "calibration set"}
"""Settings whose values may be draws, not choices, with what each value draws."""
SHOWN = 3
"""Merges that are named where more lack the same."""


@dataclass(frozen=True)
class Pool:
    """Runs that compete, and what seeds are among them."""

    runs: tuple[Job, ...]
    merges: tuple[Job, ...]
    """Those of them with a merged model."""
    draws: Mapping[str, int]
    """Seeds that are averaged over, with the number of their values: two or more."""
    settings: tuple[str, ...]
    """Seeds that vary, too, and tell runs apart."""
    gaps: tuple[str, ...] = ()
    """Why some are not averaged over: a sentence each, which names what is missing."""


def pools(runs: Sequence[Job], merges: Sequence[Job], varying: Iterable[str]) -> list[Pool]:
    """`runs`, together where the seed of the population is balanced, else by each of its values.

    `merges` are those with a merged model: where they have the same values of `varying`, seeds
    apart, they differ in their seeds only.
    """
    names = [name for name in varying if name not in SEEDS]
    values = _values(runs, merges)
    for draws in _most_first(values):
        settings = tuple(seed for seed in values if seed not in draws)
        rows = grouped(merges, [*names, *settings])
        if not any(_missing(row, {seed: values[seed] for seed in draws}) for row in rows):
            gaps = (_gap(settings, merges, names, values),) if settings else ()
            counts = {seed: len(values[seed]) for seed in draws}
            return [Pool(tuple(runs), tuple(merges), counts, settings, gaps)]
    gap = _gap([POPULATION], merges, names, values)
    return [
        replace(pool, settings=(POPULATION, *pool.settings), gaps=(gap, *pool.gaps))
        for part in grouped(runs, [POPULATION])
        for pool in pools(part, [job for job in merges if job in part], names)
    ]


def settings_used(job: Job) -> dict[str, str]:
    """A run's settings without the seeds that nothing is drawn with."""
    unused = {"seed"} if not job.failed and not job.record.stochastic else set()
    if job.settings.get(POPULATION) == "null":
        unused.add(POPULATION)
    return {name: value for name, value in job.settings.items() if name not in unused}


def grouped(jobs: Iterable[Job], names: Iterable[str]) -> list[list[Job]]:
    """Those together that have the same values of `names` and were scored in the same way.

    A population without a seed of its own is another one where its scores are others.
    """
    names = list(names)
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        used = settings_used(job)
        protocol = (benchmarks(job.record), asked(job.record))
        population = None if POPULATION in used else job.population
        key = canonical_json([{name: used.get(name) for name in names}, protocol, population])
        groups.setdefault(key, []).append(job)
    return list(groups.values())


def counted_words(draws: Mapping[str, int]) -> str:
    """What a mean is over: `n seeds`, `n populations`, `n = 3 populations x 2 seeds`."""
    if len(draws) == 1:
        return f"n {_nouns(draws)}"
    products = " x ".join(f"{draws[s]} {noun}s" for s, noun in SEEDS.items() if s in draws)
    return f"n = {products}" if products else "n runs"


def count_words(n: int, draws: Mapping[str, int]) -> str:
    """`3 populations`; `9 draws` where several seeds make them."""
    return f"{n} {_nouns(draws) if len(draws) == 1 else 'draws'}"


def _nouns(draws: Mapping[str, int]) -> str:
    (seed,) = draws
    return f"{SEEDS[seed]}s"


def _values(runs: Sequence[Job], merges: Sequence[Job]) -> dict[str, list[str]]:
    """Of each seed that varies; base and experts depend on that of the population only."""
    found = {
        seed: dict.fromkeys(
            used[seed]
            for used in map(settings_used, runs if seed == POPULATION else merges)
            if seed in used
        )
        for seed in SEEDS
    }
    return {seed: list(values) for seed, values in found.items() if len(values) > 1}


def _most_first(seeds: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Which of them may be draws of runs that compete: always the population's, if it varies."""
    others = [seed for seed in seeds if seed != POPULATION]
    always = [seed for seed in seeds if seed == POPULATION]
    for number in range(len(others), -1, -1):
        for chosen in combinations(others, number):
            yield (*always, *chosen)


def _missing(row: Sequence[Job], values: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """The combinations of values of those seeds that a merge depends on, and was not run with."""
    used = [settings_used(job) for job in row]
    own = [seed for seed in values if any(seed in each for each in used)]
    had = {tuple(each.get(seed) for seed in own) for each in used}
    every = product(*(values[seed] for seed in own))
    return [dict(zip(own, cell, strict=True)) for cell in every if cell not in had]


def _gap(
    seeds: Sequence[str],
    merges: Sequence[Job],
    names: Sequence[str],
    values: Mapping[str, Sequence[str]],
) -> str:
    """`population.seed is not averaged over: ties omega=0.4 lacks 1 and 2`."""
    lacking: dict[str, list[str]] = {}
    told = [name for name in names if not name.startswith("population")]
    for row in grouped(merges, names):
        if lack := _lack(row, values):
            lacking.setdefault(lack, []).append(label(settings_used(row[0]), told))
    parts = [
        f"{_first(rows)} lack{'s' * (len(rows) == 1)} {lack}" for lack, rows in lacking.items()
    ]
    verb = "is" if len(seeds) == 1 else "are"
    return f"{' and '.join(seeds)} {verb} not averaged over: {'; '.join(parts)}"


def _lack(row: Sequence[Job], values: Mapping[str, Sequence[str]]) -> str:
    """What a merge was not run with: values that it lacks altogether, else combinations."""
    missing = _missing(row, values)
    if not missing:
        return ""
    had = [settings_used(job) for job in row]
    absent = {
        seed: [value for value in values[seed] if all(used[seed] != value for used in had)]
        for seed in missing[0]
    }
    named = [
        (f"{seed} " if len(values) > 1 else "") + _and(without)
        for seed, without in absent.items()
        if without
    ]
    return " and ".join(named) or _first(
        [" with ".join(f"{seed}={value}" for seed, value in cell.items()) for cell in missing]
    )


def _first(texts: Sequence[str]) -> str:
    """All, or the first few and how many more there are."""
    more = len(texts) - SHOWN
    return _and([*texts[:SHOWN], f"{more} more"]) if more > 0 else _and(texts)


def _and(texts: Sequence[str]) -> str:
    *others, last = texts
    return f"{', '.join(others)} and {last}" if others else last
