"""What the page's tables and lists show: cells with their text, sorting value and emphasis."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from aim_exp.report.board import NOTHING, Board, Line, member_board, study_board
from aim_exp.report.compare.comparison import Comparison, Verdict
from aim_exp.report.repeats import AVERAGE, GAIN, Repeats
from aim_exp.report.results import Job, Results
from aim_exp.report.seeds import SEEDS, count_words
from aim_exp.report.settings import short_name
from aim_exp.report.studies import Study, studies
from aim_exp.report.summary import margin_text, printed

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
    runs: Mapping[str, str] = field(default_factory=dict)
    """The ids of its runs' sections, by the runs' names."""


@dataclass(frozen=True)
class Table:
    """Headings of the leading cells and of the numbers, and the rows."""

    lead: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    unit: str
    """What the numbers are, and what follows ±."""
    title: str
    """Which study this is, where there are several."""
    precision: str
    """Of a table of means: the standard errors that it does not show."""


@dataclass(frozen=True)
class Fact:
    """A number that the page opens with."""

    name: str
    value: str
    about: str


@dataclass(frozen=True)
class Leaderboard:
    """A study's ranking, and the numbers that a reader looks for first."""

    headline: list[Fact]
    table: Table

    @property
    def size(self) -> int:
        """How many merges."""
        return len(self.table.rows)


@dataclass(frozen=True)
class RunSection:
    """A run: its settings, what it said, and how to repeat it."""

    id: str
    name: str
    label: str
    command: str
    settings: Mapping[str, str]
    warnings: tuple[str, ...]
    ended: str
    """How, where that was early; else empty."""
    error: str
    filtered: Mapping[str, str]


def anchor(results: Results, job: Job) -> str:
    """The id of a run's section: any text may stand in a folder's name, so its position."""
    return f"run-{results.jobs.index(job)}"


def leaderboards(results: Results) -> list[Leaderboard]:
    """Of each study that has merges."""
    found = [study for study in studies(results) if study.merges]
    return [Leaderboard(list(_headline(s)), _leaderboard(results, s)) for s in found]


def _headline(study: Study) -> Iterator[Fact]:
    for name, quantity in (("best average", AVERAGE), ("largest hypervolume gain", GAIN)):
        rated = [(spread, each) for each in study.repeats if (spread := each.spread(quantity))]
        if rated:
            best, repeats = max(rated, key=lambda pair: pair[0].mean)
            margin = best.deviation if study.repeated else best.stderr
            error = margin_text(quantity, margin) if quantity == AVERAGE else ""
            value = f"{printed(quantity, best.mean)} {error}".rstrip()
            counted = f", mean of {count_words(best.n, study.draws)}" if best.n > 1 else ""
            yield Fact(name, value, study.label(repeats.first) + counted)
    on_front = sum(map(study.on_front, study.repeats))
    yield Fact("on the front", f"{on_front} of {len(study.repeats)}", "of all benchmarks")


def above(results: Results, comparison: Comparison) -> Fact:
    """How many merges are better than what they are compared with, by the mean of their draws."""
    rows = {row.job.directory: row.average for row in comparison.rows}
    every = [each for study in studies(results) for each in study.repeats]
    merges = [[rows[job.directory] for job in each.jobs if job.directory in rows] for each in every]
    compared = [averages for averages in merges if averages]
    above = [averages for averages in compared if fmean(each.value for each in averages) > 0]
    held = sum(all(each.verdict == Verdict.ABOVE for each in averages) for averages in above)
    tested = any(each.test for averages in compared for each in averages)
    drawn = " in every draw" if any(len(averages) > 1 for averages in compared) else ""
    return Fact(
        f"above {comparison.title}",
        f"{len(above)} of {len(compared)}",
        f"by average; {held} of them beyond noise{drawn}" if tested else "by average; not tested",
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
    """A run's values of what varies; a plain merge has no scaling, so that it always stays.

    But for the seeds, which are taken together.
    """
    names = [name for name in results.varying if name in job.settings and name not in SEEDS]
    return {
        short_name(name): job.settings[name]
        for name in names
        if PLAIN_NAME.fullmatch(short_name(name))
    }


def anchors(results: Results, repeats: Repeats) -> dict[str, str]:
    """The ids of the sections of all runs, by the runs' names."""
    return {job.name: anchor(results, job) for job in repeats.runs}


def _leaderboard(results: Results, study: Study) -> Table:
    """A row per merge, the best average first."""
    board = study_board(study, study.ranked)
    shares = _shares(board)
    rows = [
        Row(
            lead=tuple(map(_word, line.lead)),
            cells=_numbers(board, line, shares),
            on_front=line.on_front,
            method=repeats.first.record.method,
            filtered=filtered(results, repeats.first),
            runs=anchors(results, repeats),
        )
        for repeats, line in zip(study.ranked, board.lines, strict=True)
    ]
    return _table(board, board.lead, rows)


def population_tables(results: Results) -> list[Table]:
    """Base, experts and references of every study."""
    return [_population_table(member_board(study)) for study in studies(results)]


def _population_table(board: Board) -> Table:
    rows = [
        Row(
            lead=(_word(line.lead[0]), _word(line.role), *map(_word, line.lead[1:])),
            cells=_numbers(board, line, {}),
            on_front=line.on_front,
        )
        for line in board.lines
    ]
    return _table(board, (board.lead[0], "role", *board.lead[1:]), rows)


def _table(board: Board, lead: tuple[str, ...], rows: Sequence[Row]) -> Table:
    gain = ("gain",) if board.with_gain else ()
    return Table(
        lead=lead,
        columns=(AVERAGE, *gain, *board.benchmarks),
        rows=tuple(rows),
        unit=board.unit,
        title=board.title,
        precision=board.precision if board.repeated else "",
    )


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
            ended=job.ended,
            error=job.record.error or "no reason was recorded" if job.failed else "",
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
            printed(column, score.value),
            score.value,
            "" if column == GAIN else margin_text(column, board.margin(line, column)),
            best=board.is_best(line, column),
            share=shares.get((column, score.value)),
        )

    return tuple(map(number, (AVERAGE, *[GAIN] * board.with_gain, *board.benchmarks)))


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
