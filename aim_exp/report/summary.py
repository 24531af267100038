"""What runs come to, in words, and how numbers are written everywhere."""

from __future__ import annotations

from collections.abc import Callable

from aim_exp.records import RunRecord
from aim_exp.report.models import Estimate, merged_model, population_models
from aim_exp.report.results import Job, Results

GAIN_MEANS = "hypervolume gain over base and the merged experts"


def run_facts(record: RunRecord) -> dict[str, str]:
    """By name, what to say below a run's table; empty where nothing was scored."""
    facts = {
        "hypervolume gain": _hypervolume_gain(record),
        "average": _average(record),
        "normalised average": _normalised(record),
    }
    return {name: text for name, text in facts.items() if text}


def counts(results: Results) -> str:
    """`7 jobs, 6 scored, 1 failed`."""
    number = len(results.jobs)
    parts = [f"{number} job" + "s" * (number != 1), f"{len(results.scored)} scored"]
    return ", ".join(parts + [f"{len(results.failed)} failed"] * bool(results.failed))


def title(results: Results) -> str:
    """`ties vs dare_ties`."""
    return " vs ".join(dict.fromkeys(job.record.method or "?" for job in results.jobs))


def when(results: Results) -> list[str]:
    """`2026-01-02 03:04 to 2026-01-02 03:14 UTC`; empty where no run says."""
    created = sorted(job.record.created for job in results.jobs if job.record.created)
    ends = dict.fromkeys(moment[:16].replace("T", " ") for moment in (*created[:1], *created[-1:]))
    return [f"{' to '.join(ends)} UTC"] if ends else []


def repeats(results: Results, name: Callable[[Job], str]) -> str:
    """Which runs stand in several sweeps and are listed once: `S1/0 = S2/3, S1/1 = S2/4`."""
    return ", ".join(" = ".join(map(name, (job, *job.repeats))) for job in results.repeated)


def ranked(results: Results) -> list[Job]:
    """The jobs with a scored merge, the best average first."""

    def rank(job: Job) -> float:
        return job.merged.average.value if job.merged and job.merged.average else 0.0

    return sorted(results.scored, key=rank, reverse=True)


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
    return "" if score.stderr is None else f"±{100 * score.stderr:.1f}"


def p_text(p: float | None) -> str:
    """`0.043`, `<0.001`, or a dash where nothing was tested."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def gain_text(gain: float) -> str:
    """A hypervolume gain, as in the paper's tables but with one more digit."""
    return f"{gain:.3f}"


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
