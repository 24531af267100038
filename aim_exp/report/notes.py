"""What a reader must know before believing a report: computed from it, in plain words.

The beginner's faults first, as far as scores show them: models that are not what one took them for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from statistics import fmean

from aim_exp.errors import AimError
from aim_exp.report.answers import read_answers
from aim_exp.report.draws import Draw
from aim_exp.report.files import kept
from aim_exp.report.front import gain_by_noise
from aim_exp.report.grouped import grouped
from aim_exp.report.plots.saliency import saliency_file
from aim_exp.report.rows import AVERAGE, Group, Report
from aim_exp.report.summary import recorded, scored
from aim_exp.report.tables.scores import group_title
from aim_exp.report.units import PERCENT, VOLUME
from aim_exp.report.words import few
from aim_exp.store.run_record import MERGED

LIBRARIES = ("lm-eval", "torch", "transformers", "tokenizers")
"""Whose version can change a score."""
SHOWN = 4
"""Models, or sets of them, that are named."""
FOLDER, VERSION = "chance", 2
ERRORS = 2.0
"""Standard errors above chance that are still chance: about the end of a 95 % interval."""


def notes(report: Report) -> list[str]:
    """All caveats that apply, what forbids a comparison first, each a sentence."""
    parts = (doubts, _unchosen, _precision, _noise, _one_draw, _embedded, _saliency, _warnings)
    return list(dict.fromkeys(line for part in parts for line in part(report)))


def doubts(report: Report) -> list[str]:
    """Why the runs may not be compared, or should make one look twice: what differs, and how."""
    parts = (_groups, _versions, _unequal, _equal, _faults, _gaps)
    return [*report.runs.problems, *(line for part in parts for line in part(report))]


def _groups(report: Report) -> Iterator[str]:
    if len(report.groups) > 1:
        titles = few([group_title(group) for group in report.groups])
        yield (
            f"{len(report.groups)} populations or protocols, not to be compared: {titles}; each "
            "has its own tables, and fronts, gains and what is best hold within one of them only"
        )


def _versions(report: Report) -> Iterator[str]:
    records = [record for _, record in scored(report)]
    for library in LIBRARIES:
        if line := _differing(library, (r.versions.get(library, "") for r in records)):
            yield f"{line}: versions can change a score"
    for name in ("dtype", "device"):
        if line := _differing(name, (getattr(record, name) for record in records)):
            yield f"{line}: that can change an answer here and there"


def _unequal(report: Report) -> Iterator[str]:
    """The same weights, asked the same, with other scores: the noise of the hardware, or worse."""
    first: dict[str, tuple[str, float]] = {}
    for job, record in scored(report):
        for model in record.models:
            for name, score in model.scores.items():
                other, value = first.setdefault(score.key, (job.title, score.value))
                if value != score.value:
                    yield (
                        f"{model.name} on {name} scored {PERCENT.write(value)} in {other} and "
                        f"{PERCENT.write(score.value)} in {job.title}, the same weights asked the "
                        "same"
                    )
                    return


def _equal(report: Report) -> Iterator[str]:
    """Different weights with the same score everywhere: is the one scored that was meant?

    All sets of such models in one line.
    """
    names: dict[tuple[int, tuple[float, ...]], dict[str, str]] = {}
    for group in report.groups:
        for row in group.rows:
            title = f"{row.titles} ({row.label})" if row.role == MERGED else row.label
            for draw in row.draws if row.estimates else ():
                scores = tuple(score.value for score in draw.model.scores.values())
                of = names.setdefault((group.number, scores), {})
                of.setdefault(draw.model.keys.get("weights", ""), title)
    alike = [list(models.values()) for models in names.values() if len(models) > 1]
    if alike:
        sets = [few(titles) for titles in alike]
        several = f", in {len(sets)} sets" if len(sets) > 1 else ""
        yield (
            f"{sum(map(len, alike))} different models score exactly the same on every benchmark"
            f"{several}: {' | '.join(sets[:SHOWN])}{' | ...' * (len(sets) > SHOWN)}; too few "
            "items, not the models that were meant, or a setting that does not matter to the "
            "method (weights that it normalises)"
        )


def _faults(report: Report) -> Iterator[str]:
    for group in report.groups:
        for part in (_no_better_than_base, _at_chance, _without_volume, _alike):
            yield from (f"{line}{group.mark}" for line in part(group))


def _no_better_than_base(group: Group) -> Iterator[str]:
    """An expert on what it was trained for."""
    base = group.members[0].estimates if group.members else {}
    for row in group.members:
        for benchmark in row.draws[0].record.population.specialty.get(row.model, ()):
            own, its = row.estimates.get(benchmark), base.get(benchmark)
            if own and its and own.mean <= its.mean:
                yield (
                    f"{row.model} scores {PERCENT.write(own.mean)} on {benchmark}, its own "
                    f"specialty, and base {PERCENT.write(its.mean)}: is it the model that was "
                    "meant, asked with its chat template?"
                )


def _at_chance(group: Group) -> Iterator[str]:
    """Or at zero: models on a benchmark together."""
    for benchmark in group.benchmarks:
        chance = next((c for r in group.members if (c := _chance(r.draws[0], benchmark))), 0.0)
        known = ((r.label, r.estimates[benchmark]) for r in group.rows if benchmark in r.estimates)
        low = [
            name
            for name, estimate in known
            if estimate.mean <= chance + bool(chance) * ERRORS * (estimate.stderr or 0.0)
        ]
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


def _chance(draw: Draw, benchmark: str) -> float | None:
    """Of choosing blindly; None where nothing is chosen, or the items are gone."""
    source = draw.sources.get(benchmark)
    if source is None or not source.is_there:
        return None

    def blind() -> float | None:
        try:
            questions = read_answers(source).questions
        except AimError:
            return None
        lengths = [len(each.choices or ()) for each in questions]
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


def _gaps(report: Report) -> Iterator[str]:
    """Seeds that nothing is averaged over, since some runs are missing; where that is so."""
    numbers = grouped((gap, f"[{group.number}]") for group in report.groups for gap in group.gaps)
    for gap, within in numbers.items():
        yield gap if len(within) == len(report.groups) else f"{gap} (in {', '.join(within)})"


def _unchosen(report: Report) -> Iterator[str]:
    """`select.on=populations` without populations."""
    if lacking := report.choices.lacking:
        yield (
            f"{few(lacking)}: nothing is chosen; `select.on=populations` needs two or more, the "
            "same for all settings: sweep `population.seed`"
        )


def _precision(report: Report) -> Iterator[str]:
    """How large a difference of two averages must be to mean something."""
    averages = (row.estimates.get(AVERAGE) for row in report.merges)
    errors = [each.stderr for each in averages if each and each.stderr is not None]
    if errors:
        margin = PERCENT.write(1.96 * math.sqrt(2) * max(errors))
        yield (
            f"Without a paired test, two averages closer than about {margin} points cannot be told "
            "apart (95 %). With many runs the best one is partly luck."
        )


def _noise(report: Report) -> Iterator[str]:
    """A gain is never negative, so luck alone gives some."""
    for group in report.groups:
        if noise := gain_by_noise(group):
            yield (
                f"A model no better than base or an expert would have a hypervolume gain of "
                f"{VOLUME.write(noise.mean)} by the luck of its items, in one of twenty above "
                f"{VOLUME.write(noise.high)}{group.mark}."
            )


def _one_draw(report: Report) -> Iterator[str]:
    """Methods whose random choices had one seed: what those add is not known."""
    random = [record for _, record in scored(report) if "seed" in record.draws]
    if len({record.draws["seed"] for record in random}) == 1:
        methods = ", ".join(sorted({record.method for record in random}))
        yield f"{methods}: random choices drawn with one `seed`; sweep it to see their spread."


def _embedded(report: Report) -> Iterator[str]:
    """Measured on it: relaxing by saliency is no better there than by the same mean factor."""
    records = [record for _, record in scored(report)]
    if any(record.population.name == "tiny" for record in records):
        controlled = any(record.relaxation == "uniform" for record in records)
        control = "" if controlled else " Run the control `aim.scaling=uniform` beside it."
        yield (
            "The embedded population shows that the pipeline works, not that AIM does: at its size "
            "a gain from AIM could not be told from shrinking every delta by the same mean factor."
            f"{control}"
        )


def _saliency(report: Report) -> Iterator[str]:
    """A file that the records name and that is gone: its figure is left out."""
    file = saliency_file(report)
    if file and not file.is_file():
        place = os.path.relpath(file, report.runs.directory)
        yield f"{place} is gone: the saliency is not shown; any run of these repeats it"


def _warnings(report: Report) -> Iterator[str]:
    """What the runs themselves warned of."""
    for _, record in recorded(report):
        yield from record.warnings


def _differing(name: str, values: Iterable[str]) -> str:
    """`torch differs: 2.13.0, 2.9.1`, or nothing where there is one value (or none known)."""
    different = list(dict.fromkeys(value for value in values if value))
    return f"{name} differs: {', '.join(different)}" if len(different) > 1 else ""
