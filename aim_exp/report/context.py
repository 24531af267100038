"""What a report says, computed once: `report.md` and `report.html` are two templates of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aim_exp.report import plots
from aim_exp.report.differences import Differences
from aim_exp.report.load import Job
from aim_exp.report.notes import notes
from aim_exp.report.plots.series import OMEGA
from aim_exp.report.replicates import NOTHING_FIXED, Claim, over_replicates
from aim_exp.report.rows import Group, Report
from aim_exp.report.settings import as_text
from aim_exp.report.summary import (
    Fact,
    above,
    counts,
    headline,
    job_label,
    origin,
    recorded,
    shared_settings,
    title,
    when,
)
from aim_exp.report.tables.changes import deltas_table, dose_table
from aim_exp.report.tables.differences import difference_table
from aim_exp.report.tables.replicates import replicate_table
from aim_exp.report.tables.scores import choice_table, group_title, leaderboard, members_table
from aim_exp.report.tables.sweep import experts_table, sweep_table
from aim_exp.report.tables.table import Table
from aim_exp.store.stage_spec import canonical_json


@dataclass(frozen=True)
class Standings:
    """A group: its ranking, and what was merged."""

    title: str
    """`[2] max_length=45`; empty where there is one group."""
    headline: tuple[Fact, ...]
    leaderboard: Table | None
    """None where nothing was merged, or scored."""
    members: Table | None


@dataclass(frozen=True)
class Compared:
    """Every run against one kind of baseline."""

    title: str
    """`the plain merge`."""
    fact: Fact
    table: Table
    replicates: Table | None
    """Of the same, over replicates; None where nothing was drawn several times."""
    sentences: tuple[str, ...]
    """A run each, then what was not compared."""


@dataclass(frozen=True)
class RunFacts:
    """A run: what it is, how it ended, how to repeat it."""

    job: Job
    label: str
    anchor: str
    """Its id on the page: any text may stand in a folder's name, so its position."""
    settings: Mapping[str, str]
    error: str
    """Of a run that failed."""
    command: str
    code: str
    """`code of method 0123456789ab`, which the command stands for; empty if the package's own."""


@dataclass(frozen=True)
class Context:
    """Everything that a report says. Texts are plain: a template escapes them for its format."""

    title: str
    running: bool
    """Whether its sweep goes on."""
    about: tuple[str, ...]
    """Counts, and when."""
    settings: Mapping[str, str]
    """What all runs have in common."""
    sweeps: Mapping[str, str]
    """`S2` -> its folder; empty where there is one."""
    standings: tuple[Standings, ...]
    compared: tuple[Compared, ...]
    charts: plots.Charts
    swept: Table | None
    """Averages against one setting."""
    experts: Table | None
    """Against how many were merged."""
    choices: Table | None
    doses: Table | None
    """What relaxations left of the merges' change."""
    deltas: tuple[Table, ...]
    """Of the experts, one for each set that was measured and scored nothing."""
    captions: Mapping[str, str]
    """Of the figures, by name."""
    tables: tuple[str, ...]
    """Files for papers."""
    notes: tuple[str, ...]
    runs: tuple[RunFacts, ...]
    origin: Mapping[str, Sequence[str]]


def make_context(
    report: Report,
    differences: Sequence[Differences],
    tables: Sequence[Path] = (),
    axes: plots.Pair | None = None,
    x: str = OMEGA,
    *,
    running: bool = False,
    claim: Claim = NOTHING_FIXED,
) -> Context:
    """`tables` are the files for papers that were written, below the report's directory.

    `axes` are the benchmarks of the front, `x` the setting that scores are shown against.
    """
    charts = plots.make_charts(report, axes, x)
    return Context(
        title=title(report),
        running=running,
        about=tuple(filter(None, (counts(report), when(report)))),
        settings=shared_settings(report),
        sweeps=report.runs.sweeps,
        standings=tuple(_standings(report, group) for group in report.groups),
        compared=tuple(_compared(report, each, claim) for each in differences),
        charts=charts,
        swept=sweep_table(charts.swept),
        experts=experts_table(report),
        choices=choice_table(report),
        doses=dose_table(report),
        deltas=tuple(
            table
            for record in {canonical_json(r.deltas): r for _, r in recorded(report)}.values()
            if (table := deltas_table(record))
        ),
        captions={name: caption for name, (caption, _) in plots.figures(charts).items()},
        tables=tuple(path.as_posix() for path in tables),
        notes=tuple(notes(report)),
        runs=tuple(_run(report, number, job) for number, job in enumerate(report.runs.jobs)),
        origin=origin(report),
    )


def _standings(report: Report, group: Group) -> Standings:
    scored = any(row.estimates for row in group.merges)
    return Standings(
        title=group_title(group),
        headline=tuple(headline(group)) if scored else (),
        leaderboard=leaderboard(report, group) if scored else None,
        members=members_table(report, group) if group.benchmarks else None,
    )


def _compared(report: Report, differences: Differences, claim: Claim) -> Compared:
    sentences = [differences.sentence(each) for each in differences.contrasts]
    return Compared(
        title=differences.title,
        fact=above(differences),
        table=difference_table(differences, report.benchmarks),
        replicates=replicate_table(over_replicates(differences, claim), report.benchmarks),
        sentences=(*sentences, *differences.omissions()),
    )


def _run(report: Report, number: int, job: Job) -> RunFacts:
    record = job.record
    code = [f"{group} {digest[:12]}" for group, digest in record.code.items()] if record else []
    about = {"device": record.device, "created": record.created} if record else {}
    if job.seconds is not None:
        about["seconds"] = f"{job.seconds:.1f}"
    return RunFacts(
        job=job,
        label=job_label(report, job),
        anchor=f"run-{number}",
        settings={
            **{report.short(name): text for name, text in report.settings(job).items()},
            **{name: as_text(text) for name, text in about.items() if text},
            "folder": job.folder,
        },
        error=(record.error if record else None) or "no reason was recorded",
        command=record.command if record else "",
        code=f"code of {', '.join(code)}" if code else "",
    )
