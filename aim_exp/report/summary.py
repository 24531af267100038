"""What runs come to, in words, and how numbers are written everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aim_exp.report.models import Estimate, merged_model, population_models
from aim_exp.report.repeats import AVERAGE, GAIN
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import as_words
from aim_exp.report.studies import NUMBER, Study, studies
from aim_exp.store.records import INTERRUPTED, RunRecord

GAIN_MEANS = "hypervolume gain over base and the merged experts"
PLAIN_LINE = "Dashed: the plain merge (omega null, which omega 1 equals)."
DOTS = "Faint dots: one model each, around their mean."
GAIN_DIGITS = 3
"""One more than in the paper's tables."""
SHOWN = 5
"""Jobs that are named where there are more."""


def run_facts(record: RunRecord) -> dict[str, str]:
    """By name, what to say below a run's table; empty where nothing was scored."""
    facts = {
        "hypervolume gain": _hypervolume_gain(record),
        "average": _average(record),
        "normalised average": _normalised(record),
        "scored on": _limit([record]),
    }
    return {name: text for name, text in facts.items() if text}


def counts(results: Results) -> str:
    """`7 jobs, 5 scored, 1 failed, 1 interrupted`, and on how few items if that was limited.

    Of a sweep that ended before its last job: `interrupted, 3 of 6 jobs, 3 scored`.
    """
    number, planned = len(results.jobs), results.planned or 0
    cut_off = number < planned
    jobs = f"{number} of {planned} jobs" if cut_off else f"{number} job" + "s" * (number != 1)
    parts = [*[INTERRUPTED] * cut_off, jobs, f"{len(results.scored)} scored"]
    ends = Counter(job.ended for job in results.failed)
    parts += [f"{ends[what]} {what}" for what in ("failed", INTERRUPTED) if ends[what]]
    limit = _limit([job.record for job in results.scored])
    return ", ".join(parts + [f"on {limit}"] * bool(limit))


def _limit(records: Sequence[RunRecord]) -> str:
    """Empty where any benchmark was scored whole: what only some runs have tells studies apart."""
    asked = [about.get("protocol") or {} for r in records for about in r.benchmarks.values()]
    limits = dict.fromkeys(protocol.get("limit") or 0 for protocol in asked)
    if not limits or 0 in limits:
        return ""
    shares = [f"{limit:g} items" if limit >= 1 else f"{100 * limit:g} %" for limit in limits]
    return f"the first {' or '.join(shares)} of each task"


def title(results: Results) -> str:
    """`ties vs dare_ties`."""
    return " vs ".join(dict.fromkeys(job.record.method or "?" for job in results.jobs))


def when(results: Results) -> list[str]:
    """`2026-01-02 03:04 to 2026-01-02 03:14 UTC`; empty where no run says."""
    created = sorted(job.record.created for job in results.jobs if job.record.created)
    ends = dict.fromkeys(moment[:16].replace("T", " ") for moment in (*created[:1], *created[-1:]))
    return [f"{' to '.join(ends)} UTC"] if ends else []


def repeats(results: Results) -> str:
    """Which runs stand in several sweeps and are listed once: `S1/0 = S2/3, S1/1 = S2/4`."""
    alike = ([run.name for run in (job, *job.repeats)] for job in results.repeated)
    return ", ".join(map(" = ".join, alike))


def study_words(results: Results) -> dict[str, str]:
    """What is scored apart: `[2]` -> `limit=20 (2 jobs: 0, 1)`; empty where all runs compete."""
    found = [study for study in studies(results) if study.shared]
    return {f"[{study.number}]": _study_words(study) for study in found}


def study_title(study: Study) -> str:
    """`[2] limit=20 (2 jobs: 0, 1)`; empty where there is one study."""
    return f"[{study.number}] {_study_words(study)}" if study.shared else ""


def study_name(study: Study) -> str:
    """`[2] limit=20`; empty where there is one study."""
    return f"[{study.number}] {_told(study)}".rstrip() if study.shared else ""


def _study_words(study: Study) -> str:
    number = len(study.runs)
    return f"{_told(study)} ({number} job{'s' * (number != 1)}: {job_names(study.runs)})".lstrip()


def _told(study: Study) -> str:
    """Without the number that tells it apart where nothing else does."""
    return as_words({name: value for name, value in study.shared.items() if name != NUMBER})


def job_names(jobs: Sequence[Job]) -> str:
    """The first few."""
    names = ", ".join(job.name for job in jobs[:SHOWN])
    return names + (", ..." if len(jobs) > SHOWN else "")


def path_words(results: Results) -> str:
    """What the thin lines of the front lead through; empty where there are none."""
    if not results.has_relaxed:
        return ""
    start = "from a plain merge (hollow) " if results.has_plain else ""
    return (
        f"Thin lines lead {start}through {'its' if start else 'the'} runs with AIM (filled), from "
        "weak to strong relaxation."
    )


def plain_words(results: Results) -> str:
    """What the dashed lines of the curves are; empty where there are none."""
    return PLAIN_LINE if results.has_plain else ""


def shared_settings(results: Results) -> dict[str, str]:
    """What all jobs that ran have in common; what differs stands in the tables.

    A method's own fields go by its name: several methods have a density.
    """
    ran = [job for job in results.jobs if not job.failed] or results.jobs
    shared: dict[str, str] = {}
    for job in ran:
        for name, value in job.settings.items():
            if value != "null" and name not in results.varying:
                group, dot, field = name.partition(".")
                own = group == "method" and dot
                shared[f"{job.record.method}.{field}" if own else name] = value
    return dict(sorted(shared.items(), key=lambda item: "." in item[0]))


def origin(results: Results) -> dict[str, list[str]]:
    """Versions, machines and seconds by name; several values where jobs differ."""
    seen: dict[str, dict[str, None]] = {}
    for job in results.jobs:
        record = job.record
        about = {**record.provenance, "device": record.device, **record.versions}
        for name, value in about.items():
            if value not in (None, ""):
                seen.setdefault(name, {})[str(value)] = None
    seconds = sum(job.seconds_in_all for job in results.jobs)
    return {name: list(values) for name, values in seen.items()} | {
        "all jobs together": [f"{seconds:.0f} s"]
    }


def percent(score: Estimate, *, error: bool = False) -> str:
    """`47.3`, or with its standard error `47.3 ±4.1`."""
    value = f"{100 * score.value:.1f}"
    return f"{value} {error_text(score)}".rstrip() if error else value


def error_text(score: Estimate) -> str:
    """`±4.1`, or nothing where it is unknown."""
    return margin_text(AVERAGE, score.stderr)


def margin_text(column: str, margin: float | None) -> str:
    """`±4.1`, or nothing where it is unknown."""
    return "" if margin is None else f"±{printed(column, margin)}"


def p_text(p: float | None) -> str:
    """`0.043`, `<0.001`, or a dash where nothing was tested."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def gain_text(gain: float) -> str:
    """A hypervolume gain."""
    return f"{gain:.{GAIN_DIGITS}f}"


def printed(column: str, value: float) -> str:
    """A number as tables write it: percent with one digit, gains with three."""
    return gain_text(value) if column == GAIN else f"{100 * value:.1f}"


def _hypervolume_gain(record: RunRecord) -> str:
    gain, over_all = record.hypervolume_gain, record.hypervolume_gain_population
    if gain is None:
        return ""
    text = f"{gain_text(gain)} over base and the merged experts"
    merged, experts = (record.population.get(key) or () for key in ("merged", "experts"))
    if over_all is not None and len(merged) < len(experts):
        text += f", {gain_text(over_all)} over all experts"
    return text


def _average(record: RunRecord) -> str:
    merged = merged_model(record)
    if merged is None or merged.average is None:
        return ""
    text = percent(merged.average, error=True)
    members = [(model.average, model.name) for model in population_models(record)]
    rated = [(average.value, name) for average, name in members if average is not None]
    if not rated:
        return text
    best, name = max(rated)
    change = 100 * (merged.average.value - best)
    direction = "above" if change >= 0 else "below"
    return f"{text}, {abs(change):.1f} {direction} the best member ({name}, {100 * best:.1f})"


def _normalised(record: RunRecord) -> str:
    if record.normalised_average is None:
        return ""
    return f"{record.normalised_average:.2f} of what the expert for each benchmark scores"
