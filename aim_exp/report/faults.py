"""The beginner's faults, as far as scores show them: models that are not what one took them for."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from aim_exp.errors import AimError
from aim_exp.report.answers import read_answers
from aim_exp.report.draws import Draw
from aim_exp.report.grouped import grouped
from aim_exp.report.kept import kept
from aim_exp.report.rows import Group, Report, Row
from aim_exp.report.units import PERCENT
from aim_exp.report.words import few

FOLDER, VERSION = "chance", 2
ERRORS = 2.0
"""Standard errors above chance that are still chance: about the end of a 95 % interval."""


def faults(report: Report) -> Iterator[str]:
    """A sentence each; what several models have in common is one."""
    for group in report.groups:
        parts = (_no_better_than_base, _at_chance, _without_volume, _alike)
        for line in (line for part in parts for line in part(group)):
            yield f"{line}{group.mark}"


def _no_better_than_base(group: Group) -> Iterator[str]:
    """An expert on what it was trained for."""
    members = {row.model: row for row in group.members}
    for name, row in members.items():
        own = row.jobs[0].record
        for benchmark in own.population.specialty.get(name, ()) if own else ():
            scores = [_score(model, benchmark) for model in (row, members.get("base"))]
            if scores[0] is not None and scores[1] is not None and scores[0] <= scores[1]:
                yield (
                    f"{name} scores {PERCENT.write(scores[0])} on {benchmark}, its own specialty, "
                    f"and base {PERCENT.write(scores[1])}: is it the model that was meant, asked "
                    "with its chat template?"
                )


def _at_chance(group: Group) -> Iterator[str]:
    """Or at zero: models on a benchmark together."""
    for benchmark in group.benchmarks:
        chance = next((c for r in group.members if (c := _chance(r.draws[0], benchmark))), 0.0)
        low = [row.label for row in group.rows if _is_low(row, benchmark, chance)]
        if low:
            level = f"chance ({PERCENT.write(chance)})" if chance else "zero"
            yield f"at {level} on {benchmark}: {few(low)}; differences there say nothing"


def _without_volume(group: Group) -> Iterator[str]:
    """A benchmark whose reference point nobody is above takes every volume away."""
    rivals = [row for row in (*group.members, *group.merges) if row.estimates]
    for name in rivals[0].draws[0].objectives if rivals else ():
        corner = rivals[0].draws[0].record.benchmarks[name].reference_point
        if all(row.estimates[name].mean <= corner for row in rivals):
            yield (
                f"all models stand at the reference point ({PERCENT.write(corner)}) on {name}: "
                f"every hypervolume gain is 0; set benchmarks.tasks.{name}.objective=false to "
                "leave it out"
            )


def _is_low(row: Row, benchmark: str, chance: float) -> bool:
    estimate = row.estimates.get(benchmark)
    if estimate is None:
        return False
    error = (estimate.stderr or 0.0) if chance else 0.0
    return estimate.mean <= chance + ERRORS * error


def _chance(draw: Draw, benchmark: str) -> float | None:
    """Of choosing blindly; None where nothing is chosen, or the items are gone."""
    source = draw.sources.get(benchmark)
    if source is None or not source.is_there:
        return None

    def blind() -> float | None:
        try:
            choices = read_answers(source).questions.choices
        except AimError:
            return None
        lengths = [len(each or ()) for each in choices]
        return fmean(1 / n for n in lengths) if lengths and min(lengths) > 1 else None

    return kept(draw.job.shared / FOLDER, VERSION, source.evidence, blind)


def _alike(group: Group) -> Iterator[str]:
    """The same answers to every item as base or an expert, by the files that hold them."""
    sources = ((row, row.draws[0].sources) for row in group.rows)
    same = grouped(
        (tuple(own[name].evidence for name in sorted(own)), row)
        for row, own in sources
        if own and all(source.is_there for source in own.values())
    )
    for rows in same.values():
        if len(rows) > 1 and any(row.role != "merged" for row in rows):
            names = few([row.label for row in rows])
            yield f"{names} answer every item alike: are they different models?"


def _score(row: Row | None, benchmark: str) -> float | None:
    estimate = row.estimates.get(benchmark) if row else None
    return estimate.mean if estimate else None
