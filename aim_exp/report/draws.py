"""Draws: models that differ in their seeds only, averaged where every rival has the same seeds.

A mean over three populations and a score on one of them differ by the populations too: a change
from one to the other may have the wrong sign. So a seed is averaged over only where it is balanced:
all that depends on it was run with the same values, and with every combination of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from aim_exp.report.grouped import grouped
from aim_exp.report.words import listed
from aim_exp.store.run_record import ModelRecord, Role, RunRecord
from aim_exp.store.stage_spec import content_key

if TYPE_CHECKING:
    from aim_exp.report.items import Source
    from aim_exp.report.load import Job

LEVELS = (
    ("population.seed", "benchmarks.items_seed"), ("calibration.seed",), ("seed",), ("repeat",),
)  # fmt: skip
"""The seeds, from the outermost level in: masks are drawn within a calibration, and so on."""
DRAWS = tuple(seed for level in LEVELS for seed in level)
OUTERMOST = LEVELS[0]
OF_MEMBERS = (*OUTERMOST, "repeat")
"""The seeds that base and experts depend on."""
NOUNS = {
    "population.seed": "population", "benchmarks.items_seed": "set of items",
    "calibration.seed": "calibration set", "seed": "seed", "repeat": "repeat",
}  # fmt: skip
"""What a value of each draws."""
SHOWN = 3
"""Merges that are named where more lack the same."""

Level = tuple[str, ...]
Value = tuple[int | None, ...]
"""Of a level's seeds."""


@dataclass(frozen=True, eq=False)
class Draw:
    """A model, as one run made it or scored it."""

    job: Job
    record: RunRecord
    """The job's."""
    model: ModelRecord
    seeds: Mapping[str, int]
    """Those that it depends on."""

    @cached_property
    def identity(self) -> str:
        """Equal for all draws of the same: a model, how it was asked, and the experts merged."""
        merged = list(self.record.population.merged) if self.is_merge else []
        return content_key("identity", 1, [_evidence(self.model), merged])

    @property
    def objectives(self) -> tuple[str, ...]:
        """The benchmarks that averages, fronts and gains are over."""
        about = self.record.benchmarks
        return tuple(name for name in self.model.scores if about[name].objective)

    @property
    def sources(self) -> dict[str, Source]:
        return self.job.sources[self.model.name]

    @property
    def is_merge(self) -> bool:
        return self.model.role == "merged"

    def value(self, level: Level) -> Value:
        """Of the level's seeds; None for one that it does not depend on."""
        if level == OUTERMOST and self.depends_on(level):
            return self.population  # a reference's items are those that its run's models had
        return tuple(self.seeds.get(seed) for seed in level)

    @property
    def population(self) -> Value:
        """Of the outermost level, those of the run; a reference was scored beside some."""
        return tuple(self.record.draws.get(seed) for seed in OUTERMOST)

    def depends_on(self, level: Level) -> bool:
        """Whether any seed of the level counts for it."""
        return any(seed in self.seeds for seed in level)


@dataclass(frozen=True)
class Pool:
    """What may be ranked together: one protocol, and one population or its balanced draws."""

    key: str
    draws: tuple[Draw, ...]
    averaged: tuple[Level, ...]
    """Levels with several values that are averaged over."""
    counts: Mapping[str, int]
    """By seed of those levels, one for each, how many values it has."""
    apart: tuple[Level, ...] = ()
    """Levels that tell rows apart."""
    gaps: tuple[str, ...] = ()
    """Why: a sentence each, which names what is missing."""

    def rows(self, *roles: Role) -> list[list[Draw]]:
        """Of the models with these roles, draws of the same together, in the order of the runs."""
        return _rows((draw for draw in self.draws if draw.model.role in roles), self.apart)

    def row_key(self, draw: Draw) -> str:
        """Equal where all that is shown rests on the same."""
        return content_key("row", 1, [self.key, *_row_key(draw, self.apart)])


def pools(jobs: Iterable[Job], words: Callable[[Job], str]) -> list[Pool]:
    """Everything that `jobs` made and scored, where it may be ranked; `words` name a merge."""
    protocols = grouped(
        (_protocol(record), draw)
        for job in jobs
        if (record := job.record)
        and any(model.keys for model in record.models)  # else nothing was measured or scored
        for draw in _draws(job, record)
    )
    return [pool for key, draws in protocols.items() for pool in _pools(key, draws, words)]


def seed_words(counts: Mapping[str, int]) -> str:
    """`n populations, each a mean over 2 seeds`: n counts the outermost level alone."""
    if not counts:
        return ""
    outermost, *inner = counts
    within = " x ".join(f"{counts[seed]} {NOUNS[seed]}s" for seed in inner)
    return f"n {_plural(outermost)}" + (f", each a mean over {within}" if within else "")


def count_words(n: int, counts: Mapping[str, int]) -> str:
    """`3 populations`."""
    return f"{n} {_plural(next(iter(counts), 'seed'))}"


def _plural(seed: str) -> str:
    return "sets of items" if seed == "benchmarks.items_seed" else f"{NOUNS[seed]}s"


def _protocol(record: RunRecord) -> str:
    """What models must share to be ranked together: base and experts, seeds apart, and the rules.

    Their scores' keys say how they were asked.
    """
    members = [_evidence(model) for model in record.members]
    metrics = {n: score.metric for model in record.models for n, score in model.scores.items()}
    rules = {
        name: [about.reference_point, about.objective] for name, about in record.benchmarks.items()
    }
    specialty = {name: list(own) for name, own in record.population.specialty.items()}
    return content_key("protocol", 1, [members, metrics, rules, specialty])


def _evidence(model: ModelRecord) -> list[Any]:
    """What a model is, and what its scores rest on, seeds apart."""
    scores = {name: score.undrawn for name, score in model.scores.items()}
    return [model.name, model.role, model.keys.get("undrawn"), scores]


def _draws(job: Job, record: RunRecord) -> Iterator[Draw]:
    for model in record.models:
        seeds = {seed: record.draws[seed] for seed in DRAWS if seed in record.draws}
        if model.role != "merged":
            seeds = {seed: value for seed, value in seeds.items() if seed in OF_MEMBERS}
        if model.role == "reference":  # its weights are given
            seeds = {seed: value for seed, value in seeds.items() if seed != "population.seed"}
        yield Draw(job, record, model, seeds)


def _pools(protocol: str, draws: Sequence[Draw], words: Callable[[Job], str]) -> list[Pool]:
    """One, where the outermost level is balanced; else one for each of its values."""
    merges = [draw for draw in draws if draw.is_merge]
    values = _values(draws, merges)
    for averaged in _most_first(values):
        apart = tuple(level for level in values if level not in averaged)
        needed = {level: values[level] for level in averaged}
        if not any(_missing(row, needed) for row in _rows(merges, apart)):
            gaps = (_gap(apart, merges, values, words),) if apart else ()
            counts = {seed_of(level, values[level]): len(values[level]) for level in averaged}
            return [Pool(protocol, tuple(draws), averaged, counts, apart, gaps)]
    gap = _gap((OUTERMOST,), merges, values, words)
    return [
        replace(pool, key=content_key("pool", 1, [protocol, list(value)]), gaps=(gap, *pool.gaps))
        for value in values[OUTERMOST]
        for pool in _pools(protocol, [d for d in draws if d.population == value], words)
    ]


def _values(draws: Sequence[Draw], merges: Sequence[Draw]) -> dict[Level, list[Value]]:
    """Of each level that may be drawn: several values, and of the inner ones in the same row.

    Where no row has two values of an inner seed, they are settings like others.
    """
    values = {}
    for level in LEVELS:
        depending = [draw for draw in draws if draw.depends_on(level)]
        if level != OUTERMOST:
            repeated = (
                len({draw.value(level) for draw in row}) > 1 for row in _rows(depending, ())
            )
            if not any(repeated):
                continue
            depending = [draw for draw in merges if draw.depends_on(level)] or depending
        several = list(dict.fromkeys(draw.value(level) for draw in depending))
        if len(several) > 1:
            values[level] = several
    return values


def _most_first(levels: Iterable[Level]) -> Iterator[tuple[Level, ...]]:
    """Which of them may be averaged over, as many as can be; the outermost always, if it varies."""
    always = tuple(level for level in levels if level == OUTERMOST)
    others = [level for level in levels if level != OUTERMOST]
    for number in range(len(others), -1, -1):
        for chosen in combinations(others, number):
            yield (*always, *chosen)


def _rows(draws: Iterable[Draw], apart: Sequence[Level]) -> list[list[Draw]]:
    """Of the same model but for seeds, in the order of the runs."""
    return list(grouped((_row_key(draw, apart), draw) for draw in draws).values())


def _row_key(draw: Draw, apart: Sequence[Level]) -> tuple[Any, ...]:
    """`apart` are levels that tell merges apart; base and experts are those of all of them."""
    return (draw.identity, *(draw.value(level) for level in apart if draw.is_merge))


def _missing(row: Sequence[Draw], values: Mapping[Level, Sequence[Value]]) -> list[list[Value]]:
    """The combinations of values of those levels that a merge depends on, and was not run with."""
    own = [level for level in values if any(draw.depends_on(level) for draw in row)]
    at_hand = {tuple(draw.value(level) for level in own) for draw in row}
    every = product(*(values[level] for level in own))
    return [list(cell) for cell in every if cell not in at_hand]


def _gap(
    levels: Sequence[Level],
    merges: Sequence[Draw],
    values: Mapping[Level, Sequence[Value]],
    words: Callable[[Job], str],
) -> str:
    """`population.seed is not averaged over: ties omega=0.4 lacks 1 and 2`."""
    lacks = ((_lack(row, values), words(row[0].job)) for row in _rows(merges, ()))
    lacking = grouped(pair for pair in lacks if pair[0])
    parts = [
        f"{listed(rows, SHOWN)} lack{'s' * (len(rows) == 1)} {lack}"
        for lack, rows in lacking.items()
    ]
    seeds = [seed_of(level, values[level]) for level in levels]
    return f"{' and '.join(seeds)} {'is' if len(seeds) == 1 else 'are'} not averaged over" + (
        f": {'; '.join(parts)}" if parts else ""
    )


def _lack(row: Sequence[Draw], values: Mapping[Level, Sequence[Value]]) -> str:
    """What a merge was not run with: values that it lacks altogether, else combinations."""
    own = {
        level: seed_of(level, values[level])
        for level in values
        if any(draw.depends_on(level) for draw in row)
    }
    at_hand = {level: {draw.value(level) for draw in row} for level in own}
    absent = {level: [_text(v) for v in values[level] if v not in at_hand[level]] for level in own}
    if any(absent.values()):
        several = len(values) > 1
        return " and ".join(
            f"{own[level]} " * several + listed(of) for level, of in absent.items() if of
        )
    cells = [
        " with ".join(f"{seed}={_text(v)}" for seed, v in zip(own.values(), cell, strict=True))
        for cell in _missing(row, values)
    ]
    return listed(cells, SHOWN)


def seed_of(level: Level, values: Sequence[Value]) -> str:
    """The first of the level's seeds that varies."""
    columns = zip(level, zip(*values, strict=True), strict=True)
    return next((seed for seed, column in columns if len(set(column)) > 1), level[0])


def _text(value: Value) -> str:
    return "/".join(str(each) for each in value if each is not None)
