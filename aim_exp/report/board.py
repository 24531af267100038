"""The tables, computed: lines of models with their scores. Others draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from aim_exp.records import RunRecord
from aim_exp.report.models import (
    Estimate,
    Model,
    Role,
    benchmarks,
    merged_model,
    population_models,
    reference_models,
)
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import short_name
from aim_exp.report.summary import gain_text

NOTHING = "–"


@dataclass(frozen=True)
class Line:
    """A model's line: what names it, and what it scored."""

    lead: tuple[str, ...]
    role: Role
    model: Model | None
    gain: float | None = None
    on_front: bool = False
    failed: bool = False

    def score(self, column: str) -> Estimate | None:
        """The score on a benchmark, or the `average`."""
        if self.model is None:
            return None
        return self.model.average if column == AVERAGE else self.model.scores.get(column)


AVERAGE = ""
"""The column of averages: no benchmark has an empty name."""


@dataclass(frozen=True)
class Board:
    """A table: headings of the leading cells, benchmarks, lines by section."""

    lead: tuple[str, ...]
    benchmarks: tuple[str, ...]
    sections: tuple[tuple[Line, ...], ...]
    with_gain: bool = False

    @property
    def lines(self) -> list[Line]:
        """The lines of all sections."""
        return [line for section in self.sections for line in section]

    def is_best(self, line: Line, column: str) -> bool:
        """Whether nothing in the column is better; references do not compete."""
        score = line.score(column)
        if score is None or line.role == "reference":
            return False
        return score.value >= self._best[column]

    def has_best_gain(self, line: Line) -> bool:
        """Whether no line has a larger gain, as printed."""
        return line.gain is not None and gain_text(line.gain) == self._best_gain

    @cached_property
    def _best_gain(self) -> str:
        return gain_text(max(line.gain for line in self.lines if line.gain is not None))

    @cached_property
    def _best(self) -> dict[str, float]:
        """By column, the best value."""
        rivals = [line for line in self.lines if line.role != "reference"]
        best = {}
        for column in (AVERAGE, *self.benchmarks):
            scores = [line.score(column) for line in rivals]
            best[column] = max((score.value for score in scores if score), default=0.0)
        return best

    def largest_error(self, column: str) -> float | None:
        """The largest standard error in the column."""
        scores = [line.score(column) for line in self.lines]
        errors = [score.stderr for score in scores if score and score.stderr is not None]
        return max(errors, default=None)


def run_board(record: RunRecord) -> Board:
    """One run: base, experts, references and the merged model."""
    on_front = record.on_front or []
    merged = merged_model(record)
    groups = (population_models(record), [merged] if merged else [], reference_models(record))
    sections = [
        [Line((model.name,), model.role, model, on_front=model.name in on_front) for model in group]
        for group in groups
    ]
    return Board(("model",), tuple(benchmarks(record)), _sections(*sections))


def population_board(results: Results) -> Board:
    """The populations of several runs."""
    return Board(("model",), results.benchmarks, _sections(*_populations(results, width=1)))


def job_board(results: Results, jobs: Sequence[Job], *, with_population: bool) -> Board:
    """Several runs: a line per job, in the order of `jobs`; the populations above, if asked."""
    numbered = ("base",) if len(results.populations) > 1 else ()
    lead = ("job", *numbered, *results.varying)
    members, references = _populations(results, width=len(lead)) if with_population else ([], [])
    lines = [_job_line(results, job, numbered=bool(numbered)) for job in jobs]
    return Board(
        tuple(short_name(name) for name in lead),
        results.benchmarks,
        _sections(members, lines, references),
        with_gain=True,
    )


def _job_line(results: Results, job: Job, *, numbered: bool) -> Line:
    population = NOTHING if job.population is None else f"[{job.population + 1}]"
    settings = (job.settings.get(name, NOTHING) for name in results.varying)
    return Line(
        lead=(job.name, *([population] if numbered else []), *settings),
        role="merged",
        model=job.merged,
        gain=job.record.hypervolume_gain,
        on_front=results.on_front(job),
        failed=job.failed,
    )


def _populations(results: Results, width: int) -> tuple[list[Line], list[Line]]:
    """Base and experts, and the references; the name stands in the second of several cells."""
    members, references = [], []
    for number, population in enumerate(results.populations):
        for model in (*population.models, *population.references):
            name = results.member_name(model, number)
            line = Line(
                named_lead(name, width),
                model.role,
                model,
                on_front=model.name in population.models_on_front,
            )
            (references if model.role == "reference" else members).append(line)
    return members, references


def named_lead(name: str, width: int) -> tuple[str, ...]:
    """Leading cells of a line that is no job: its name, beside the column of jobs if any."""
    return (name,) if width == 1 else ("", name, *[""] * (width - 2))


def _sections(*sections: Sequence[Line]) -> tuple[tuple[Line, ...], ...]:
    return tuple(tuple(section) for section in sections if section)
