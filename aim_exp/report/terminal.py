"""Runs on a terminal: a run, a job of a sweep, a sweep, and what is compared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from aim_exp.console import print_warning
from aim_exp.errors import AimError
from aim_exp.report.answers import changed_first, read_answers
from aim_exp.report.differences import AVERAGE, GAIN, Differences, Verdict
from aim_exp.report.draws import Draw
from aim_exp.report.load import Job
from aim_exp.report.notes import doubts
from aim_exp.report.replicates import NOTHING_FIXED, Claim, over_replicates
from aim_exp.report.rows import Report
from aim_exp.report.summary import counts, job_label, run_facts
from aim_exp.report.tables.changes import deltas_table
from aim_exp.report.tables.differences import INTERVAL, benchmark_table, verdict_table
from aim_exp.report.tables.replicates import replicate_table
from aim_exp.report.tables.scores import choice_table, run_table, standings, unscored_table
from aim_exp.report.tables.terminal import fits, print_table
from aim_exp.statistics import LEVEL, ROUNDING

LISTED = ("failed", "interrupted", "unreadable")
"""Ends that have a line; what is running or was not begun is counted."""


def print_run(console: Console, report: Report, next_command: str | None = None) -> None:
    """A run's table, what it comes to, its files and a next step."""
    (job,) = report.runs.jobs
    _print_title(console, job_label(report, job))
    for group in report.groups:
        if group.benchmarks:
            print_table(console, run_table(report, group))
    record = job.record
    if record and (deltas := deltas_table(record)):
        print_table(console, deltas)
    facts = (run_facts(record) if record else {}) | {"files": _short_path(job.directory)}
    if (job.directory / "model").is_dir():
        facts["model"] = _short_path(job.directory / "model")
    _print_facts(console, facts | ({"try next": next_command} if next_command else {}))
    for warning in dict.fromkeys([*report.runs.problems, *(record.warnings if record else ())]):
        print_warning(console, warning)
    _print_ends(console, report, [job])


def print_sweep(
    console: Console,
    report: Report,
    directory: Path,
    differences: Sequence[Differences] = (),
    next_command: str | None = None,
) -> None:
    """Tables of what competes, what holds, the files, a next step, and what failed."""
    _print_title(console, counts(report))
    scored = [group for group in report.groups if group.benchmarks]
    shown = {job for group in scored for row in group.rows for job in row.jobs}
    left_out = ("not run", "running")
    others = [j for j in report.runs.jobs if j not in shown and j.ended_early not in left_out]
    for group in scored:
        print_table(console, standings(report, group, others if len(scored) == 1 else ()))
    if others and len(scored) != 1:
        print_table(console, unscored_table(report, others))
    if chosen := choice_table(report):
        _print_title(console, "what was chosen")
        print_table(console, chosen)
    facts = {
        **report.runs.sweeps,
        **{f"against {each.title}": each.summary() for each in differences},
        "files": _short_path(directory),
        **({"try next": next_command} if next_command else {}),
    }
    _print_facts(console, facts)
    for doubt in doubts(report):
        print_warning(console, doubt)
    _print_ends(console, report, report.runs.jobs)


def print_differences(
    console: Console, differences: Differences, report: Report, claim: Claim = NOTHING_FIXED
) -> None:
    """The average, the hypervolume gain and, if that fits, each benchmark."""
    _print_title(console, f"against {differences.title}")
    for quantity in (AVERAGE, GAIN):
        if table := verdict_table(differences, quantity):
            print_table(console, table)
    by_benchmark = benchmark_table(differences, report.benchmarks)
    legend = [
        f"diff, {INTERVAL}, p: of these weights, on the same items, for the row alone",
        f"Holm: p adjusted over the {differences.family_words}",
        f"above, below: Holm below {1 - LEVEL:.2g}, and 0 outside the interval; else noise",
    ]
    if fits(console, by_benchmark):
        print_table(console, by_benchmark)
    else:
        legend.append("by benchmark: in the files, or on a wider terminal")
    console.print()
    console.print(Text("\n".join(legend), style="dim"), soft_wrap=True)
    if table := replicate_table(over_replicates(differences, claim), ()):
        _print_title(console, f"over replicates, against {differences.title}")
        print_table(console, table)
    for line in (*_best_is_noise(differences), *differences.omissions()):
        print_warning(console, line)


def print_items(
    console: Console, before: Draw, after: Draw, benchmark: str, *, changed: bool = False
) -> None:
    """What two models answered, the largest changes first; `changed`: those alone."""
    both = [draw.sources for draw in (before, after)]
    if any(benchmark not in sources for sources in both):
        known = ", ".join(after.sources)
        raise AimError(f"--benchmark {benchmark}: not scored for both; there are: {known}")
    first, second = (read_answers(sources[benchmark]) for sources in both)
    changes = [a.change(b) for a, b in zip(first.given, second.given, strict=False)]
    order = changed_first(first, second)
    differing = [item for item in order if changes[item]]
    for item in differing if changed else order:
        question = second.questions[item]
        console.rule(Text(question.id), align="left")
        console.print(Text(question.prompt[question.start :].strip()))
        for choice in question.choices or ():
            console.print(Text(f"  - {choice}"))
        console.print(Text(f"target: {question.target}", style="bold"))
        for name, given in (("before", first.given[item]), ("after", second.given[item])):
            title = f"{name}: {'–' if given.score is None else f'{given.score:g}'}"
            console.print(Text(title, style="green" if given.score else "red"))
            console.print(Text(given.text.strip()))
    up = sum(changes[item] > 0 for item in differing)
    console.print(
        Text(f"{len(order)} items: {up} better, {len(differing) - up} worse", style="bold")
    )


def _best_is_noise(differences: Differences) -> Iterable[str]:
    """The best of each group, which one would quote, if it does not hold."""
    for _, contrasts in differences.grouped():
        best = max(contrasts, key=lambda each: each.average.value)
        if best.average.value > ROUNDING and best.average.verdict == Verdict.NOISE:
            yield f"no claim holds for the best: {differences.sentence(best)}"


def _print_title(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"), soft_wrap=True)


def _print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """`name  text` lines; never wrapped by us, so that commands and paths can be copied."""
    width = max(map(len, facts))
    console.print()
    for name, text in facts.items():
        line = Text(f"{name:<{width}}  ", style="dim")
        console.print(line.append(text, style="not dim"), soft_wrap=True)


def _print_ends(console: Console, report: Report, jobs: Iterable[Job]) -> None:
    """Each job that ended early, with its error."""
    for job in jobs:
        if job.ended_early in LISTED:
            error = job.record.error if job.record and job.ended_early == "failed" else None
            lines = [f"{job.ended_early}: {job.folder} ({job_label(report, job)})"]
            lines += [f"  {line}" for line in (error or "").splitlines()]
            console.print(Text("\n".join(lines), style="red"), soft_wrap=True)


def _short_path(directory: Path) -> str:
    """Relative to the working directory where that is below it."""
    relative = os.path.relpath(directory)
    return str(directory) if relative.startswith("..") else relative
