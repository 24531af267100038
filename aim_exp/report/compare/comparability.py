"""What forbids to compare runs, or should make one look twice; a sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from aim_exp.report.models import Model, asked, benchmarks, merged_model, population_models
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import as_text
from aim_exp.report.studies import studies
from aim_exp.store.keys import canonical_json

LIBRARIES = ("lm-eval", "torch", "transformers", "tokenizers")
"""Whose version can change a score."""
SEEN_ELSEWHERE = {"lm_eval"}
"""Of a protocol: a version says it."""
SHOWN = 4
"""Models, or sets of them, that are named."""
DIGESTS = {"items": "the items", "task_files": "the task files"}
"""Parts of a protocol that mean nothing to a reader."""


def doubts(results: Results) -> list[str]:
    """Why the scored runs may not be compared: each line names what differs, and how."""
    jobs = results.scored
    return [
        *_suites(jobs),
        *_protocols(results),
        *_versions(jobs),
        *_models(jobs),
        *_member_scores(results),
        *_same_scores(results),
        *_gaps(results),
    ]


def _suites(jobs: Sequence[Job]) -> Iterator[str]:
    if line := _differing("suites", (job.record.suite for job in jobs)):
        yield f"{line}: they ask in other ways, so their scores are not to be compared"
    sets = {frozenset(benchmarks(job.record)) for job in jobs}
    if len(sets) > 1:
        common = ", ".join(sorted(frozenset.intersection(*sets))) or "none"
        yield f"benchmarks differ (in all runs: {common}): averages are not to be compared"


def _protocols(results: Results) -> Iterator[str]:
    """A line per ingredient that differs, with the benchmarks where it does."""
    found: dict[str, list[str]] = {}
    for name in results.benchmarks:
        about = [j.record.benchmarks[name] for j in results.scored if name in j.record.benchmarks]
        known = [_ingredients(each) for each in about if each.get("protocol")]
        for ingredient in dict.fromkeys(key for each in known for key in each):
            shown = ingredient not in DIGESTS
            values = (each.get(ingredient) for each in known)
            title = DIGESTS.get(ingredient, ingredient)
            if line := _differing(title, map(as_text, values), shown=shown):
                found.setdefault(line, []).append(name)
    for line, names in found.items():
        where = "every benchmark" if len(names) == len(results.benchmarks) else ", ".join(names)
        yield f"{line} (in {where}): these scores are not to be compared"


def _ingredients(about: Mapping[str, object]) -> dict[str, object]:
    protocol = about["protocol"]
    assert isinstance(protocol, Mapping)
    told = {name: value for name, value in protocol.items() if name not in SEEN_ELSEWHERE}
    return {"metric": about.get("metric"), **told}


def _versions(jobs: Sequence[Job]) -> Iterator[str]:
    for library in LIBRARIES:
        if line := _differing(library, (job.record.versions.get(library, "") for job in jobs)):
            yield f"{line}: versions can change a score"
    for name in ("dtype", "device"):
        if line := _differing(name, (str(getattr(job.record, name)) for job in jobs)):
            yield f"{line}: that can change an answer here and there"


def _models(jobs: Sequence[Job]) -> Iterator[str]:
    """The same population by its settings, but other models under the same names."""
    identities: dict[str, dict[str, set[str]]] = {}
    for job in jobs:
        name = " ".join(
            value for key, value in job.settings.items() if key.partition(".")[0] == "population"
        )
        for model, identity in (job.record.population.get("models") or {}).items():
            identities.setdefault(name, {}).setdefault(model, set()).add(identity)
    for name, models in identities.items():
        differing = [model for model, found in models.items() if len(found) > 1]
        if differing:
            yield f"population {name}: not the same weights everywhere for {', '.join(differing)}"


def _member_scores(results: Results) -> Iterator[str]:
    """The same weights, asked the same, with other scores: the noise of the hardware, or worse."""
    first: dict[str, tuple[Job, float]] = {}
    for job in results.scored:
        weights, protocols = job.record.keys.get("weights", {}), asked(job.record)
        for model in population_models(job.record):
            for name, score in model.scores.items():
                key = canonical_json([weights.get(model.name), name, protocols.get(name)])
                other, value = first.setdefault(key, (job, score.value))
                if model.name in weights and value != score.value:
                    yield (
                        f"{model.name} on {name} scored {100 * value:.1f} in {other.name} and "
                        f"{100 * score.value:.1f} in {job.name}, the same weights asked the same"
                    )
                    return


def _same_scores(results: Results) -> Iterator[str]:
    """Different weights with the same score everywhere: is the one scored that was meant?

    All sets of such models in one line.
    """
    names: dict[str, dict[str, str]] = {}
    for job in results.scored:
        for model in (*population_models(job.record), merged_model(job.record)):
            weights = model and job.record.keys.get("weights", {}).get(model.name)
            if model and weights:
                merged = model.role == "merged"
                title = f"{job.name} ({results.label(job)})" if merged else model.name
                names.setdefault(_scores(job, model), {}).setdefault(weights, title)
    alike = [list(models.values()) for models in names.values() if len(models) > 1]
    if alike:
        sets = [_first(titles, ", ") for titles in alike]
        yield (
            f"{sum(map(len, alike))} different models score exactly the same on every benchmark"
            f"{f', in {len(sets)} sets' if len(sets) > 1 else ''}: {_first(sets, ' | ')}; too few "
            "items, not the models that were meant, or a setting that does not matter to the "
            "method (weights that it normalises)"
        )


def _gaps(results: Results) -> Iterator[str]:
    """Seeds that nothing is averaged over, since some runs are missing; where that is so."""
    found = studies(results)
    numbers: dict[str, list[str]] = {}
    for study in found:
        for gap in study.gaps:
            numbers.setdefault(gap, []).append(f"[{study.number}]")
    for gap, within in numbers.items():
        yield gap if len(within) == len(found) else f"{gap} (in {', '.join(within)})"


def _first(texts: Sequence[str], between: str) -> str:
    return between.join([*texts[:SHOWN], *(["..."] if len(texts) > SHOWN else [])])


def _scores(job: Job, model: Model) -> str:
    protocols = asked(job.record)
    return canonical_json([protocols, {name: each.value for name, each in model.scores.items()}])


def _differing(title: str, values: Iterable[str], *, shown: bool = True) -> str:
    """`limit differs: 10, null`, or nothing where there is one value (or none known)."""
    different = list(dict.fromkeys(value for value in values if value))
    if len(different) < 2:
        return ""
    verb = "differ" if title.startswith("the ") or title == "suites" else "differs"
    return f"{title} {verb}" + (f": {', '.join(different)}" if shown else "")
