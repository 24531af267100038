"""What the page's tables and lists show: cells with their text, sorting value and emphasis."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aim_exp.report.board import AVERAGE, NOTHING, Board, Line, job_board, population_board
from aim_exp.report.compare.comparison import Comparison, Verdict
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import short_name
from aim_exp.report.summary import error_text, gain_text, percent, ranked

ALWAYS = ("method", "omega")
"""Filters whatever the number of their values."""
MOST = 8
"""Values of any other setting that can be filtered by."""
PLAIN_NAME = re.compile("[a-z][a-z0-9_.]*")
"""A setting's name that an HTML attribute can have."""


@dataclass(frozen=True)
class Cell:
    """A number or a word in a table."""

    text: str
    sort: float | str = ""
    """What the column is sorted by; empty cells come last."""
    error: str = ""
    best: bool = False
    share: int | None = None
    """Where the value lies between the least and the greatest of its column, in percent."""
    change: str = ""
    """Against the twin, in percent of it, with its sign."""
    direction: Literal["up", "down", ""] = ""
    held: bool = False
    """Whether the difference holds."""
    about: str = ""
    """The difference with its interval and p."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    lead: tuple[Cell, ...]
    cells: tuple[Cell, ...]
    on_front: bool = False
    method: str = ""
    filtered: Mapping[str, str] = field(default_factory=dict)
    """What it is filtered by."""
    run: str = ""
    """The id of its run's section."""


@dataclass(frozen=True)
class Table:
    """Headings of the leading cells and of the numbers, and the rows."""

    lead: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class RunSection:
    """A run: its settings, what it said, and how to repeat it."""

    id: str
    name: str
    label: str
    command: str
    settings: Mapping[str, str]
    warnings: tuple[str, ...]
    error: str
    filtered: Mapping[str, str]


@dataclass(frozen=True)
class Fact:
    """A number that the page opens with."""

    name: str
    value: str
    about: str


def anchor(results: Results, job: Job) -> str:
    """The id of a run's section: any text may stand in a folder's name, so its position."""
    return f"run-{results.jobs.index(job)}"


def headline(results: Results, comparison: Comparison | None) -> list[Fact]:
    """The numbers that a reader looks for first; none where nothing was scored."""
    best = ranked(results)[:1]
    gains = [(job.record.hypervolume_gain, job) for job in results.scored]
    known = [(gain, job) for gain, job in gains if gain is not None]
    on_front = sum(results.on_front(job) for job in results.scored)
    facts = [
        Fact("best average", percent(job.merged.average, error=True), results.label(job))
        for job in best
        if job.merged and job.merged.average
    ]
    if known:
        gain, job = max(known, key=lambda pair: pair[0])
        facts.append(Fact("largest hypervolume gain", gain_text(gain), results.label(job)))
    if comparison:
        facts.append(_above(comparison))
    if results.scored:
        facts.append(
            Fact("on the front", f"{on_front} of {len(results.scored)}", "of all benchmarks")
        )
    return facts


def _above(comparison: Comparison) -> Fact:
    averages = [row.average for row in comparison.rows]
    above = sum(average.value > 0 for average in averages)
    held = sum(average.verdict == Verdict.ABOVE for average in averages)
    tested = any(average.test for average in averages)
    return Fact(
        f"above {comparison.title}",
        f"{above} of {len(averages)}",
        f"by average; {held} of them beyond noise" if tested else "by average; not tested",
    )


def filters(results: Results) -> dict[str, list[str]]:
    """What rows and points can be filtered by, words before numbers; one value is no filter."""
    found: dict[str, dict[str, None]] = {}
    for job in results.scored:
        for name, value in filtered(results, job).items():
            found.setdefault(name, {})[value] = None
    order = [short_name(name) for name in results.varying]
    return {
        name: sorted(found[name], key=_order)
        for name in sorted(found, key=order.index)
        if len(found[name]) > 1 and (name in ALWAYS or len(found[name]) <= MOST)
    }


def filtered(results: Results, job: Job) -> dict[str, str]:
    """A run's values of what varies; a plain merge has no scaling, so that it always stays."""
    return {
        short_name(name): job.settings[name]
        for name in results.varying
        if name in job.settings and PLAIN_NAME.fullmatch(short_name(name))
    }


def leaderboard(results: Results) -> Table:
    """A row per scored job, the best average first."""
    jobs = ranked(results)
    board = job_board(results, jobs, with_population=False)
    shares = _shares(board)
    rows = [
        Row(
            lead=tuple(_word(text) for text in line.lead),
            cells=_numbers(board, line, shares),
            on_front=line.on_front,
            method=job.record.method,
            filtered=filtered(results, job),
            run=anchor(results, job),
        )
        for job, line in zip(jobs, board.lines, strict=True)
    ]
    return Table(board.lead, ("average", "gain", *board.benchmarks), tuple(rows))


def population_table(results: Results) -> Table:
    """Base, experts and references of every population."""
    board = population_board(results)
    rows = [
        Row(
            lead=(_word(line.lead[0]), _word(line.role)),
            cells=_numbers(board, line, {}),
            on_front=line.on_front,
        )
        for line in board.lines
    ]
    return Table(("model", "role"), ("average", *board.benchmarks), tuple(rows))


def runs(results: Results) -> list[RunSection]:
    """A section per job, failed or not."""
    return [
        RunSection(
            id=anchor(results, job),
            name=job.name,
            label=results.label(job),
            command=job.record.command,
            settings=_told(job),
            warnings=tuple(dict.fromkeys(job.record.warnings)),
            error=(job.record.error or "no reason was recorded") if job.failed else "",
            filtered=filtered(results, job),
        )
        for job in results.jobs
    ]


def _told(job: Job) -> dict[str, str]:
    record = job.record
    told = {name: value for name, value in job.settings.items() if value}
    told |= {"device": record.device, "created": record.created}
    told |= {"seconds": "" if job.seconds is None else f"{job.seconds:.1f}"}
    told |= {"folder": str(job.directory)}
    told |= {"also in": ", ".join(str(run.directory) for run in job.repeats)}
    return {name: value for name, value in told.items() if value}


def _numbers(board: Board, line: Line, shares: Mapping[tuple[str, float], int]) -> tuple[Cell, ...]:
    """Average, gain if the board has it, and the benchmarks."""

    def number(column: str) -> Cell:
        score = line.score(column)
        if score is None:
            return Cell(NOTHING)
        return Cell(
            percent(score),
            score.value,
            error_text(score),
            best=board.is_best(line, column),
            share=shares.get((column, score.value)),
        )

    gain = [_gain(board, line)] if board.with_gain else []
    return (number(AVERAGE), *gain, *map(number, board.benchmarks))


def _shares(board: Board) -> dict[tuple[str, float], int]:
    """By column and value: where it lies between the column's least and greatest."""
    shares = {}
    for column in (AVERAGE, *board.benchmarks):
        scores = [line.score(column) for line in board.lines]
        values = [score.value for score in scores if score]
        for value in values:
            width = max(values) - min(values)
            shares[column, value] = round(100 * (value - min(values)) / width) if width else 0
    return shares


def _gain(board: Board, line: Line) -> Cell:
    if line.gain is None:
        return Cell(NOTHING)
    return Cell(gain_text(line.gain), line.gain, best=board.has_best_gain(line))


def _word(text: str) -> Cell:
    """Sorted as a number where it is one."""
    number = _number(text)
    return Cell(text, text if number is None else number)


def _order(text: str) -> float:
    """Words as they come, then numbers."""
    number = _number(text)
    return -math.inf if number is None else number


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
