"""The paragraph that a paper's appendix wants, from the records alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aim_exp.report.compare.paired import VOLUME_RESAMPLES
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import MEASURED, as_text
from aim_exp.statistics import LEVEL, RESAMPLES

LICENCE_KEYS = ("license_name", "license")
"""Of a model card, the telling one first: `license: other` comes with a name."""
VERSIONS = ("python", "torch", "transformers", "tokenizers", "lm-eval", "pymoo")
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--",
}  # fmt: skip


def methods_paragraph(results: Results, *, latex: bool = False) -> str:
    """Settings, models, calibration, benchmarks, versions, hardware and hours, in sentences.

    With `latex`, the characters that LaTeX keeps for itself are escaped.
    """
    jobs = results.scored or [job for job in results.jobs if not job.failed]
    parts = (_methods, _aim, _populations, _calibration, _benchmarks, _statistics, _origin)
    text = " ".join(sentence for part in parts for sentence in part(jobs))
    return escape_latex(text) if latex else text


def escape_latex(text: str) -> str:
    """`text` as LaTeX typesets it literally."""
    return "".join(LATEX.get(character, character) for character in text)


def _methods(jobs: Sequence[Job]) -> Iterator[str]:
    by_method: dict[str, list[Job]] = {}
    for job in jobs:
        by_method.setdefault(job.record.method, []).append(job)
    described = [
        f"{method}{_in_brackets(_values(job.record.method_settings for job in of_method))}"
        for method, of_method in by_method.items()
    ]
    yield f"We merged with {_listed(described)}."
    if seeds := _distinct(job.record.seed for job in jobs if job.record.stochastic):
        yield f"Random choices used {_counted('seed', seeds)}."
    yield f"Weights were of type {_listed(_distinct(job.record.dtype for job in jobs))}."


def _aim(jobs: Sequence[Job]) -> Iterator[str]:
    relaxed = [job for job in jobs if job.record.omega is not None]
    plain = len(relaxed) < len(jobs)
    if not relaxed:
        yield "AIM was not applied."
        return
    omegas = _distinct(sorted(job.record.omega or 0.0 for job in relaxed))
    settings = _values(job.record.aim for job in relaxed)
    yield (
        f"AIM (Nobari et al., 2025) was applied with omega {_listed(omegas)}"
        f"{_in_brackets(settings)}" + (", and left out for the plain merges." if plain else ".")
    )


def _populations(jobs: Sequence[Job]) -> Iterator[str]:
    for name in _distinct(job.record.population.get("name") for job in jobs):
        own = [job for job in jobs if job.record.population.get("name") == name]
        models: dict[str, str] = {}
        for job in own:
            population = job.record.population
            paths = {"base": population.get("base"), **(population.get("experts") or {})}
            for model, path in paths.items():
                models.setdefault(model, _model(model, path, population.get("models") or {}))
        seeds = _distinct(job.record.population.get("seed") for job in own)
        trained = f", trained with {_counted('seed', seeds)}," if seeds else ""
        merged = _distinct("+".join(job.record.population.get("merged") or ()) for job in own)
        yield f"The population {name}{trained} consists of {_listed(list(models.values()))}."
        yield f"Merged were {_listed(merged)}."


def _model(name: str, path: Any, identities: Mapping[str, str]) -> str:
    from aim_exp.checkpoint.hub import HUB

    identity = str(identities.get(name, ""))
    on_hub = identity.removeprefix(HUB) if identity.startswith(HUB) else ""
    facts = [on_hub, _licence(path)]
    return name + (f" ({', '.join(filter(None, facts))})" if any(facts) else "")


def _licence(path: Any) -> str:
    """What the model's own card says, where it is still at hand."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    from aim_exp.checkpoint.hub import CARD

    try:
        known: Mapping[str, Any] = metadata_load(Path(str(path)) / CARD) or {}
    except (OSError, ValueError, YAMLError):
        return ""
    licence = next((known[key] for key in LICENCE_KEYS if known.get(key)), "")
    return f"licence {licence}" if licence else ""


def _calibration(jobs: Sequence[Job]) -> Iterator[str]:
    relaxed = [job for job in jobs if job.record.omega is not None and job.record.calibration]
    for name in _distinct(job.record.calibration.get("name") for job in relaxed):
        own = [j.record.calibration for j in relaxed if j.record.calibration.get("name") == name]
        settings = _values(
            {key: value for key, value in each.items() if key not in {*MEASURED, "name"}}
            for each in own
        )
        texts, tokens = (
            _distinct(each.get(key) for each in own) for key in ("n_texts", "n_tokens")
        )
        used = f": {_listed(texts)} texts, {_listed(tokens)} tokens" if texts and tokens else ""
        yield f"Activations of base were measured on {name}{_in_brackets(settings)}{used}."


def _benchmarks(jobs: Sequence[Job]) -> Iterator[str]:
    for suite in _distinct(job.record.suite for job in jobs if job.record.scores):
        own = [job for job in jobs if job.record.suite == suite]
        described: dict[str, None] = {}
        for job in own:
            for name, about in job.record.benchmarks.items():
                items = (job.record.n_items or {}).get(name)
                described[_benchmark(name, about, items)] = None
        lm_eval = _listed(_distinct(job.record.versions.get("lm-eval") for job in own))
        yield (
            f"Models were scored in the suite {suite} with lm-eval {lm_eval}, on "
            f"{_listed(list(described))}."
        )


def _benchmark(name: str, about: Mapping[str, Any], items: int | None) -> str:
    protocol = about.get("protocol") or {}
    shots = about.get("num_fewshot")
    metric, _, chosen_filter = str(about.get("metric")).partition(",")
    facts = [
        f"task {about.get('task')}",
        f"metric {metric}" + (f" by {chosen_filter}" if chosen_filter != "none" else ""),
        "its tasks' own shots" if shots is None else f"{shots} shot{'s' * (shots != 1)}",
        f"{items} items" if items else "",
        f"limit {as_text(protocol['limit'])}" if protocol.get("limit") else "",
        "chat template" if protocol.get("chat_template") else "",
    ]
    return f"{name} ({', '.join(filter(None, facts))})"


def _statistics(jobs: Sequence[Job]) -> Iterator[str]:
    if sum(bool(job.record.scores) for job in jobs) > 1:
        yield (
            "Differences were tested on the same items: accuracies by McNemar's exact test, with "
            f"the {100 * LEVEL:.0f}% interval of Bonett and Price (2012); other scores, averages "
            "and hypervolume gains by a randomisation test that swaps the two models' answers (at "
            f"least {RESAMPLES:,} times), with percentile intervals from a paired bootstrap over "
            f"the items of each benchmark ({RESAMPLES:,} resamples, {VOLUME_RESAMPLES:,} for "
            "gains); p values were adjusted by Holm's method, over the averages, over the gains "
            "and over the scores by benchmark."
        )


def _origin(jobs: Sequence[Job]) -> Iterator[str]:
    used = {
        library: _distinct(job.record.versions.get(library) for job in jobs)
        for library in ("aim-exp", *VERSIONS)
    }
    named = [f"{library} {_listed(versions)}" for library, versions in used.items() if versions]
    if named:
        yield f"Software: {_listed(named)}."
    yield from _hours(jobs)


def _hours(jobs: Sequence[Job]) -> Iterator[str]:
    """What all that the results rest on took, each product once, whichever run made it."""
    products = {key: made for job in jobs for key, made in job.record.products.items()}
    by_machine: dict[str, float] = {}
    for made in filter(None, products.values()):
        by_machine[made["machine"]] = by_machine.get(made["machine"], 0.0) + made["seconds"]
    if not by_machine:
        return
    took = _listed([f"{_duration(seconds)} on {name}" for name, seconds in by_machine.items()])
    runs = "The run" if len(jobs) == 1 else f"The {len(jobs)} runs"
    devices = _listed(_distinct(job.record.device for job in jobs))
    yield (
        f"{runs} took {took}, the models on {devices}: training, calibration, merging and scoring, "
        "each done once and counted once, also where it was done before; loading models and "
        "interrupted attempts are not counted."
    )
    if unknown := sum(made is None for made in products.values()):
        yield f"Not counted are {unknown} of {len(products)} results whose time is not known."


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def _values(settings: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By name, the distinct values; those that are unset everywhere are left out."""
    found: dict[str, dict[str, None]] = {}
    for each in settings:
        for name, value in each.items():
            found.setdefault(name, {})[as_text(value)] = None
    return {name: list(values) for name, values in found.items() if set(values) - {"null", "[]"}}


def _in_brackets(values: Mapping[str, Sequence[str]]) -> str:
    named = [f"{name.replace('_', ' ')} {_listed(found)}" for name, found in values.items()]
    return f" ({', '.join(named)})" if named else ""


def _distinct(values: Iterable[Any]) -> list[str]:
    """As text, once each, in order; None and nothing left out."""
    return list(dict.fromkeys(as_text(value) for value in values if value not in (None, "")))


def _counted(noun: str, values: Sequence[str]) -> str:
    return f"{noun}{'s' * (len(values) > 1)} {_listed(values)}"


def _listed(values: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = values or [""]
    return f"{', '.join(most)} and {last}" if most else last
