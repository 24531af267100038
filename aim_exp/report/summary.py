"""What runs come to, in words: the sentences that terminal, report.md and page have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean

from aim_exp.report.differences import Differences, Verdict
from aim_exp.report.doses import dose_words
from aim_exp.report.grouped import grouped
from aim_exp.report.load import Job
from aim_exp.report.rows import AVERAGE, GAIN, Group, Report
from aim_exp.report.settings import as_text, begins, different, label
from aim_exp.report.units import PERCENT, VOLUME, unit
from aim_exp.store.run_record import RunRecord

ENDS = ("failed", "interrupted", "running", "unreadable", "not run")
UNTOLD = ("benchmarks.tasks", "population.specialty", "population.expected", "repeat")
"""Settings that say nothing in a line."""
MOST_NAMED = 5
"""Methods in a title."""
EMPTY = {"null", "[]", "false"}
"""Values of what is not used."""


@dataclass(frozen=True)
class Fact:
    """A number that one looks for first."""

    name: str
    value: str
    about: str


def job_label(report: Report, job: Job) -> str:
    """Any job in a few words: `ties omega=0.4 density=0.2`."""
    if job in report.places:
        return report.places[job][1].label
    return label(report.settings(job), report.varying, report.shorts)


def title(report: Report) -> str:
    """`ties vs dare_ties`; of many how many."""
    methods = (record.method for _, record in recorded(report))
    names = [*dict.fromkeys(methods)]
    return f"{len(names)} methods" if len(names) > MOST_NAMED else " vs ".join(names) or "no run"


def counts(report: Report) -> str:
    """`7 jobs, 5 scored, 1 failed, 1 not run`, and on how few items if that was limited."""
    jobs = report.runs.jobs
    parts = [f"{len(jobs)} job{'s' * (len(jobs) != 1)}", f"{len(scored(report))} scored"]
    ends = Counter(job.ended_early for job in jobs)
    parts += [f"{ends[how]} {how}" for how in ENDS if ends[how]]
    limit = limit_words(record for _, record in scored(report))
    return ", ".join(parts + [f"on {limit}"] * bool(limit))


def when(report: Report) -> str:
    """`2026-01-02 03:04 to 2026-01-02 03:14 UTC`; empty where no run says."""
    created = sorted(record.created for _, record in recorded(report) if record.created)
    ends = dict.fromkeys(moment[:16].replace("T", " ") for moment in (*created[:1], *created[-1:]))
    return f"{' to '.join(ends)} UTC" if ends else ""


def recorded(report: Report) -> list[tuple[Job, RunRecord]]:
    """The jobs that have a record, with it."""
    return [(job, job.record) for job in report.runs.jobs if job.record]


def scored(report: Report) -> list[tuple[Job, RunRecord]]:
    """Those with a scored merge."""
    pairs = recorded(report)
    return [(job, record) for job, record in pairs if record.merged and record.merged.scores]


def shared_settings(report: Report) -> dict[str, str]:
    """What all runs that completed have in common, by group: `ties` -> `density 0.2, scale 1`.

    What differs stands in the tables. A method's own fields go by its name: several have a density.
    """
    completed = [(job, record) for job, record in recorded(report) if not job.ended_early]
    every = [_named(job, record) for job, record in completed or recorded(report)]
    names = dict.fromkeys(name for each in every for name in each)
    values = {name: {each[name] for each in every if name in each} for name in names}
    shared: dict[str, list[str]] = {}
    for name, of in values.items():
        group, _, key = name.partition(".")
        if len(of) == 1 and not of & EMPTY:
            shared.setdefault(group, []).append(f"{key} {of.pop()}".strip())
    return {group: ", ".join(fields) for group, fields in shared.items()}


def _named(job: Job, record: RunRecord) -> dict[str, str]:
    """The options chosen first, then their fields; without what only says how tasks are asked."""
    settings = {
        name.replace("method.", f"{record.method}.", 1): as_text(value)
        for name, value in job.settings_with_effect.items()
        if name not in ("method", "aim") and not begins(name, UNTOLD)
    }
    return dict(sorted(settings.items(), key=lambda item: "." in item[0])) | {"dtype": record.dtype}


def run_facts(record: RunRecord) -> dict[str, str]:
    """By name, what to say below a run's table."""
    standing, population, facts = record.standing, record.population, {}
    if record.relaxation and (left := dose_words(record.dose)):
        facts[record.relaxation] = left
    if (gain := standing.hypervolume_gain) is not None:
        facts["hypervolume gain"] = f"{VOLUME.write(gain)} over base and the merged experts"
        over_all = standing.hypervolume_gain_population
        if over_all is not None and len(population.merged) < len(population.experts):
            facts["hypervolume gain"] += f", {VOLUME.write(over_all)} over all experts"
    if (average := standing.average) is not None:
        facts["average"] = PERCENT.write(average)
        means = {model.name: fmean(score.value for score in model.scores.values())
                 for model in record.members if model.scores}  # fmt: skip
        if best := max(means, key=means.__getitem__, default=""):
            change = PERCENT.write(abs(average - means[best]))
            direction = "above" if average >= means[best] else "below"
            best_score = PERCENT.write(means[best])
            facts["average"] += f", {change} {direction} the best member ({best}, {best_score})"
    if standing.normalised_average is not None:
        facts["normalised average"] = (
            f"{standing.normalised_average:.2f} of what the expert for each benchmark scores"
        )
    if limit := limit_words([record]):
        facts["scored on"] = limit
    return facts


def limit_words(records: Iterable[RunRecord]) -> str:
    """`the first 20 items of each task`; empty where any benchmark was scored whole."""
    benchmarks = (about for record in records for about in record.benchmarks.values())
    limits = dict.fromkeys(about.protocol.get("limit") or 0 for about in benchmarks)
    if not limits or 0 in limits:
        return ""
    shares = [f"{limit:g} items" if limit >= 1 else f"{100 * limit:g} %" for limit in limits]
    return f"the first {' or '.join(shares)} of each task"


def job_line(record: RunRecord) -> str:
    """`ties omega=0.4, average 49.0, hypervolume gain 0.123`."""
    standing = record.standing
    relaxation = "" if record.relaxation in (None, "aim") else record.relaxation
    omega = f"omega={as_text(record.omega)}" * (record.omega is not None or not record.relaxed)
    parts = [" ".join(filter(None, (record.method, omega, relaxation)))]
    if standing.average is not None:
        parts.append(f"average {PERCENT.write(standing.average)}")
    if standing.hypervolume_gain is not None:
        parts.append(f"hypervolume gain {VOLUME.write(standing.hypervolume_gain)}")
    return ", ".join(parts)


def headline(group: Group) -> Iterator[Fact]:
    """The best average, the largest gain, and how many are on the front."""
    for name, quantity in (("best average", AVERAGE), ("largest hypervolume gain", GAIN)):
        rated = [row for row in group.merges if quantity in row.estimates]
        if rated:
            best = max(rated, key=lambda row: row.estimates[quantity].mean)
            estimate = best.estimates[quantity]
            error = unit(quantity).margin(group.margin(estimate)) if quantity == AVERAGE else ""
            counted = f", mean of {group.counted.replace('n', str(best.n), 1)}" * (best.n > 1)
            value = f"{unit(quantity).write(estimate.mean)} {error}".rstrip()
            yield Fact(name, value, best.label + counted)
    merges = [row for row in group.merges if row.estimates]
    on_front = sum(row.on_front for row in merges)
    yield Fact("on the front", f"{on_front} of {len(merges)}", "of all benchmarks")


def above(differences: Differences) -> Fact:
    """How many merges are better than what they are compared with, in every draw."""
    every = ((each.merge.row.key, each.average) for each in differences.contrasts)
    averages = grouped((key, (average.value, average.verdict)) for key, average in every)
    better = [each for each in averages.values() if sum(value for value, _ in each) > 0]
    held = sum(all(verdict == Verdict.ABOVE for _, verdict in each) for each in better)
    tested = any(v != Verdict.UNTESTED for each in averages.values() for _, v in each)
    draws = " in every draw" * any(len(each) > 1 for each in averages.values())
    return Fact(
        f"above {differences.title}",
        f"{len(better)} of {len(averages)}",
        f"by average; {held} of them beyond noise{draws}" if tested else "by average; not tested",
    )


def origin(report: Report) -> dict[str, list[str]]:
    """Versions, machines and seconds by name; several values where jobs differ."""
    about = ({**r.provenance, "device": r.device, **r.versions} for _, r in recorded(report))
    known = ({name: v for name, v in each.items() if v not in (None, "")} for each in about)
    seconds = sum(job.seconds or 0.0 for job in report.runs.jobs)
    return different(known) | {"all jobs together": [f"{seconds:.0f} s"]}
