"""How sure a front is, given the luck of the items, and what noise alone would gain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

from aim_exp.errors import AimError
from aim_exp.report.files import kept
from aim_exp.report.items import read_items, strata
from aim_exp.report.rows import Group, Row
from aim_exp.statistics import NoiseGain, Stratum, noise_gain, nondominated_probability

T = TypeVar("T")
FOLDER, VERSION = "fronts", 1
MOST = 40
"""Models of a front whose items are drawn again: each is held against every other one."""


def front_probability(group: Group) -> Mapping[str, float]:
    """By row's key, how often it is on the front of the group when the items are drawn again.

    Empty for more than `MOST` models, several draws of one, and items that are not at hand.
    """
    rivals = [row for row in (*group.members, *group.merges) if row.estimates]
    if not 1 < len(rivals) <= MOST:
        return {}

    def make() -> list[float]:
        return list(map(float, nondominated_probability(_benchmarks(rivals))))

    probabilities = _kept(rivals, "front", make)
    return dict(zip((row.key for row in rivals), probabilities or [], strict=False))


def gain_by_noise(group: Group) -> NoiseGain | None:
    """The hypervolume gain of a model that is no better than base or an expert."""
    members = [row for row in group.members if row.estimates]
    if len(members) < 2:
        return None
    first = members[0].draws[0]
    corner = [first.record.benchmarks[name].reference_point for name in first.objectives]

    def make() -> dict[str, float]:
        return asdict(noise_gain(_benchmarks(members), corner))

    value = _kept(members, ["gain", corner], make)
    return NoiseGain(**value) if value else None


def _kept(rows: Sequence[Row], what: object, make: Callable[[], T]) -> T | None:
    """None where it cannot be made."""
    draws = [row.draws[0] for row in rows]
    names = draws[0].objectives
    if any(len(row.draws) > 1 for row in rows) or any(d.objectives != names for d in draws):
        return None
    items = [[draw.sources[name] for name in names] for draw in draws]
    if not all(source.is_there for row in items for source in row):
        return None
    try:
        evidence = [[source.evidence for source in row] for row in items]
        return kept(draws[0].job.shared / FOLDER, VERSION, [what, evidence], make)
    except AimError:
        return None


def _benchmarks(rows: Sequence[Row]) -> list[list[Stratum]]:
    draws = [row.draws[0] for row in rows]
    return [
        strata([read_items(draw.sources[name]) for draw in draws]) for name in draws[0].objectives
    ]
