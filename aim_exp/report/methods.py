"""The paragraph that a paper's appendix wants, from the records alone: data for a template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from aim_exp.report.differences import VOLUME_RESAMPLES
from aim_exp.report.rows import Report
from aim_exp.report.settings import as_text
from aim_exp.report.summary import recorded, scored
from aim_exp.report.tables.latex import escape_latex
from aim_exp.report.text import bracketed, render
from aim_exp.statistics import LEVEL, RESAMPLES
from aim_exp.store.records import RunRecord, StageRecord

LICENCE_KEYS = ("license_name", "license")
"""Of a model card, the telling one first: `license: other` comes with a name."""
LIBRARIES = ("aim-exp", "python", "torch", "transformers", "tokenizers", "lm-eval", "pymoo")
HIDDEN = ("_target_", "name", "specialty", "expected")
"""Fields that say nothing in a sentence."""
Values = Mapping[str, list[str]]
"""By name, the different values, as text."""


def methods_paragraph(report: Report, *, latex: bool = False) -> str:
    """Settings, models, calibration, benchmarks, versions, hardware and hours, in sentences.

    With `latex`, the characters that LaTeX keeps for itself are escaped.
    """
    completed = [record for job, record in recorded(report) if not job.ended_early]
    records = [record for _, record in scored(report)] or completed
    relaxed = [record for record in records if record.relaxed]
    stages = _stages(records)
    text = render(
        "methods.txt",
        methods=[
            f"{name}{bracketed(_fields(of, 'method'))}"
            for name, of in _by(records, lambda r: r.method)
        ],
        mask_seeds=_distinct(record.draws.get("seed") for record in records),
        dtypes=_distinct(record.dtype for record in records),
        omegas=_distinct(sorted(record.omega for record in relaxed if record.omega is not None)),
        aim=_fields(relaxed, "aim"),
        plain=len(relaxed) < len(records),
        populations=[_population(*each) for each in _by(records, lambda r: r.population.name)],
        calibrations=[_texts(*each) for each in _by(relaxed, lambda r: r.choices["calibration"])],
        suites=[
            _suite(*each)
            for each in _by(records, lambda r: r.choices["benchmarks"])
            if each[1][0].benchmarks
        ],
        merges=len(scored(report)),
        level=round(100 * LEVEL),
        resamples=f"{RESAMPLES:,}",
        volume_resamples=f"{VOLUME_RESAMPLES:,}",
        software=[
            f"{name} {' and '.join(versions)}"
            for name in LIBRARIES
            if (versions := _distinct(record.versions.get(name) for record in records))
        ],
        runs=len(records),
        hours=[f"{_duration(seconds)} on {name}" for name, seconds in _hours(stages).items()],
        devices=_distinct(record.device for record in records),
        unknown=sum(stage.seconds is None for stage in stages),
        stages=len(stages),
    )
    text = " ".join(text.split())
    return escape_latex(text) if latex else text


def _by(
    records: Iterable[RunRecord], key: Callable[[RunRecord], str]
) -> list[tuple[str, list[RunRecord]]]:
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return list(groups.items())


def _fields(records: Iterable[RunRecord], group: str) -> Values:
    """Of a group's option; those that are unset everywhere are left out."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in (record.config.get(group) or {}).items():
            if name not in HIDDEN:
                values.setdefault(name, {})[as_text(value)] = None
    return {name: list(each) for name, each in values.items() if set(each) - {"null", "[]"}}


def _population(name: str, records: list[RunRecord]) -> dict[str, Any]:
    models: dict[str, str] = {}
    for record in records:
        folders = {"base": record.population.base, **record.population.experts}
        identities = {model.name: model.identity for model in record.members}
        for model, folder in folders.items():
            models.setdefault(model, _model(model, folder, identities.get(model, "")))
    return {
        "name": name,
        "seeds": _distinct(record.draws.get("population.seed") for record in records),
        "models": list(models.values()),
        "merged": _distinct("+".join(record.population.merged) for record in records),
    }


def _model(name: str, folder: str | None, identity: str) -> str:
    """`code (org/model@commit, licence apache-2.0)`."""
    from aim_exp.checkpoint.hub import HUB

    on_hub = identity.removeprefix(HUB) if identity.startswith(HUB) else ""
    facts = ", ".join(filter(None, [on_hub, _licence(folder)]))
    return f"{name} ({facts})" if facts else name


def _licence(folder: str | None) -> str:
    """What the model's own card says, where it is still at hand."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    from aim_exp.checkpoint.hub import CARD

    try:
        card: Mapping[str, Any] = metadata_load(Path(str(folder)) / CARD) or {}
    except (OSError, ValueError, YAMLError):
        return ""
    licence = next((card[key] for key in LICENCE_KEYS if card.get(key)), "")
    return f"licence {licence}" if licence else ""


def _texts(name: str, records: list[RunRecord]) -> dict[str, Any]:
    return {
        "name": name,
        "settings": _fields(records, "calibration"),
        "texts": _distinct(record.calibration.get("n_texts") for record in records),
        "tokens": _distinct(record.calibration.get("n_tokens") for record in records),
    }


def _suite(name: str, records: list[RunRecord]) -> dict[str, Any]:
    described = (_benchmark(record, each) for record in records for each in record.benchmarks)
    return {
        "name": name,
        "lm_eval": _distinct(record.versions.get("lm-eval") for record in records),
        "benchmarks": list(dict.fromkeys(described)),
    }


def _benchmark(record: RunRecord, name: str) -> str:
    """`gsm8k (task gsm8k, metric exact_match by strict-match, 5 shots, 1319 items)`."""
    about = record.benchmarks[name]
    score = next((m.scores[name] for m in reversed(record.models) if name in m.scores), None)
    metric, _, chosen_filter = score.metric.partition(",") if score else ("", "", "")
    shots, limit = about.num_fewshot, about.protocol.get("limit")
    facts = (
        f"task {about.task}",
        f"metric {metric}" if metric else "",
        f"by {chosen_filter}" if chosen_filter not in ("", "none") else "",
        "its tasks' own shots" if shots is None else f"{shots} shot{'s' * (shots != 1)}",
        f"{score.n} items" if score else "",
        f"limit {as_text(limit)}" if limit else "",
        "chat template" if about.protocol.get("chat_template") else "",
    )
    return f"{name} ({', '.join(filter(None, facts)).replace(', by ', ' by ')})"


def _stages(records: Iterable[RunRecord]) -> list[StageRecord]:
    """What all that the results rest on took, each product once, whichever run made it."""
    products = {stage.keys: stage for record in records for stage in record.stages if stage.keys}
    return list(products.values())


def _hours(stages: Iterable[StageRecord]) -> dict[str, float]:
    """Seconds by machine."""
    seconds: dict[str, float] = {}
    for stage in stages:
        if stage.seconds is not None and stage.machine is not None:
            seconds[stage.machine] = seconds.get(stage.machine, 0.0) + stage.seconds
    return seconds


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def _distinct(values: Iterable[Any]) -> list[str]:
    """As text, once each, in order; None and nothing left out."""
    return list(dict.fromkeys(as_text(value) for value in values if value not in (None, "")))
