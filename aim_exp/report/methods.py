"""The paragraph that a paper's appendix wants, from the records alone: data for a template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aim_exp.report.differences import VOLUME_RESAMPLES
from aim_exp.report.grouped import grouped
from aim_exp.report.rows import Report
from aim_exp.report.settings import as_text, different
from aim_exp.report.summary import recorded, scored
from aim_exp.report.tables.latex import escape_latex
from aim_exp.report.text import render
from aim_exp.statistics import LEVEL, RESAMPLES
from aim_exp.store.run_record import RunRecord, StageRecord

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
    stages = _stages(records)
    versions = {name: _distinct(r.versions.get(name) for r in records) for name in LIBRARIES}
    machines = grouped((each.machine, each.seconds) for each in stages if each.seconds is not None
                       and each.machine is not None)  # fmt: skip
    text = render(
        "methods.txt",
        records=records,
        merges=len(scored(report)),
        distinct=_distinct,
        values=lambda runs, table, key: _distinct(getattr(run, table).get(key) for run in runs),
        fields=_fields,
        models=_models,
        benchmarks=_benchmarks,
        level=round(100 * LEVEL),
        resamples=RESAMPLES,
        volume_resamples=VOLUME_RESAMPLES,
        software=[f"{name} {' and '.join(used)}" for name, used in versions.items() if used],
        hours=[f"{_duration(sum(seconds))} on {name}" for name, seconds in machines.items()],
        unknown=sum(stage.seconds is None for stage in stages),
        stages=len(stages),
    )
    text = " ".join(text.split())
    return escape_latex(text) if latex else text


def _fields(records: Iterable[RunRecord], group: str) -> Values:
    """Of a group's option; those that are unset everywhere are left out."""
    values = different(record.config.get(group) or {} for record in records)
    unset = {"null", "[]"}
    return {name: of for name, of in values.items() if name not in HIDDEN and set(of) - unset}


def _models(records: Iterable[RunRecord]) -> list[str]:
    """Base and experts: `code (org/model@commit, licence apache-2.0)`."""
    from aim_exp.checkpoint.hub import HUB

    models: dict[str, str] = {}
    for record in records:
        folders = {"base": record.population.base, **record.population.experts}
        identities = {model.name: model.identity for model in record.members}
        for name, folder in folders.items():
            identity = identities.get(name) or ""
            on_hub = identity.removeprefix(HUB) if identity.startswith(HUB) else ""
            facts = ", ".join(filter(None, [on_hub, _licence(folder)]))
            models.setdefault(name, f"{name} ({facts})" if facts else name)
    return list(models.values())


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


def _benchmarks(records: Iterable[RunRecord]) -> list[str]:
    return list(dict.fromkeys(_benchmark(r, name) for r in records for name in r.benchmarks))


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


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def _distinct(values: Iterable[Any]) -> list[str]:
    """As text, once each, in order; None and nothing left out."""
    return list(dict.fromkeys(as_text(value) for value in values if value not in (None, "")))
