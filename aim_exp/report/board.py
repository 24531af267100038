"""The tables, computed: lines of models with their scores. Others draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from aim_exp.report.models import (
    Estimate,
    Role,
    benchmarks,
    merged_model,
    population_models,
    reference_models,
)
from aim_exp.report.repeats import AVERAGE, GAIN, Drawn, Member, Repeats, Spread
from aim_exp.report.results import Job, Results
from aim_exp.report.seeds import counted_words
from aim_exp.report.settings import short_name
from aim_exp.report.studies import Study
from aim_exp.report.summary import GAIN_DIGITS, job_names, printed, study_title
from aim_exp.store.records import RunRecord

NOTHING = "–"


@dataclass(frozen=True)
class Line:
    """A model's line: what names it, and what it scored."""

    lead: tuple[str, ...]
    role: Role
    spreads: Mapping[str, Spread]
    """By benchmark, `AVERAGE` and `GAIN`, where they are known."""
    n: int = 1
    """How many models: draws with other seeds."""
    on_front: bool = False
    ended: str = ""
    """How, where that was early: `failed`, `interrupted`."""

    def score(self, column: str) -> Estimate | None:
        """The mean in a column, and the standard error of one draw."""
        spread = self.spreads.get(column)
        return Estimate(spread.mean, spread.stderr) if spread else None


@dataclass(frozen=True)
class Board:
    """A table: headings of the leading cells, benchmarks, lines by section."""

    lead: tuple[str, ...]
    benchmarks: tuple[str, ...]
    sections: tuple[tuple[Line, ...], ...]
    with_gain: bool = False
    title: str = ""
    """Which study this is, where there are several."""
    counted: str = ""
    """What the lines are means over: `n seeds`."""
    precision: str = ""
    """The largest standard errors in the study, which a table of means does not show."""

    @property
    def lines(self) -> list[Line]:
        """The lines of all sections."""
        return [line for section in self.sections for line in section]

    @property
    def repeated(self) -> bool:
        """Whether any line is the mean of several seeds: what follows ± is their deviation."""
        return any(line.n > 1 for line in self.lines)

    def margin(self, line: Line, column: str) -> float | None:
        """What follows ±: the deviation over seeds where any were swept, else the error."""
        spread = line.spreads.get(column)
        if spread is None:
            return None
        return spread.deviation if self.repeated else spread.stderr

    def is_best(self, line: Line, column: str) -> bool:
        """Whether nothing in the column is better, gains as printed; references do not compete."""
        score = line.score(column)
        if score is None or line.role == "reference":
            return False
        return _compared(column, score) >= self._best[column]

    @cached_property
    def _best(self) -> dict[str, float]:
        """By column, the best value."""
        rivals = [line for line in self.lines if line.role != "reference"]
        best = {}
        for column in (AVERAGE, GAIN, *self.benchmarks):
            scores = [line.score(column) for line in rivals]
            best[column] = max((_compared(column, score) for score in scores if score), default=0.0)
        return best

    @property
    def unit(self) -> str:
        """What the numbers are, and what follows ±."""
        if self.repeated:
            return f"percent, mean ± standard deviation over {self.counted}"
        known = any(self.margin(line, AVERAGE) is not None for line in self.lines)
        return "percent ± standard error" if known else "percent"


def run_board(record: RunRecord) -> Board:
    """One run: base, experts, references and the merged model."""
    on_front = record.on_front or []
    merged = merged_model(record)
    groups = (population_models(record), [merged] if merged else [], reference_models(record))
    names = benchmarks(record)
    sections = [
        [
            _line((model.name,), Member(model.name, model.role, (model,)), names,
                  role=model.role, on_front=model.name in on_front)
            for model in group
        ]
        for group in groups
    ]  # fmt: skip
    return Board(("model",), tuple(names), _sections(*sections))


def population_board(results: Results) -> Board:
    """The populations of several runs, each as it was scored."""
    members, references = [], []
    for number, population in enumerate(results.populations):
        for model in (*population.models, *population.references):
            line = _line(
                (results.member_name(model, number),),
                Member(model.name, model.role, (model,)),
                results.benchmarks,
                role=model.role,
                on_front=model.name in population.models_on_front,
            )
            (references if model.role == "reference" else members).append(line)
    return Board(("model",), results.benchmarks, _sections(members, references))


def member_board(study: Study) -> Board:
    """Base, experts and references of a study, seeds taken together."""
    counted = any(member.n > 1 for member in (*study.members, *study.references))
    sections = _sections(*_members(study, (), counted=counted))
    return _study_board(study, ("model", *["n"] * counted), sections, with_gain=False)


def study_board(
    study: Study,
    repeats: Sequence[Repeats],
    *,
    with_members: bool = False,
    unscored: Sequence[Job] = (),
) -> Board:
    """A line per merge, seeds taken together, in the order of `repeats`; then `unscored` runs.

    Base and experts above and the references below, if asked.
    """
    told, counted = study.told, study.repeated
    blanks = [""] * (len(told) - 1)  # `job` is empty, the first setting names the model
    members, references = (
        _members(study, blanks, before=("",), counted=counted) if with_members else ([], [])
    )
    lines = [_merge_line(study, each, counted=counted) for each in repeats]
    lines += [_unscored_line(job, told, counted=counted) for job in unscored]
    lead = ("job", *map(short_name, told), *["n"] * counted)
    sections = _sections(members, lines, references)
    return _study_board(study, lead, sections, with_gain=True)


def _study_board(
    study: Study, lead: tuple[str, ...], sections: tuple[tuple[Line, ...], ...], *, with_gain: bool
) -> Board:
    return Board(
        lead,
        study.benchmarks,
        sections,
        with_gain=with_gain,
        title=study_title(study),
        counted=counted_words(study.draws),
        precision=_precision(study),
    )


def _precision(study: Study) -> str:
    """Of all its models, whichever a table shows; empty if unknown."""
    average, *others = map(study.largest_error, (AVERAGE, *study.benchmarks))
    known = [error for error in others if error is not None]
    if average is None or not known:
        return ""
    return (
        "standard error of one model over the items: up to "
        f"{printed(AVERAGE, max(known))} (a benchmark), {printed(AVERAGE, average)} (average)"
    )


def unscored_board(results: Results, jobs: Sequence[Job]) -> Board:
    """Runs that no study can list: they have no score."""
    lead = ("job", *map(short_name, results.varying))
    lines = [_unscored_line(job, results.varying, counted=False) for job in jobs]
    return Board(lead, (), _sections(lines), with_gain=True)


def _members(
    study: Study, after: Sequence[str], *, before: Sequence[str] = (), counted: bool
) -> tuple[list[Line], list[Line]]:
    """Base and experts, and the references; cells stand before and after their names."""

    def lines(members: Sequence[Member]) -> list[Line]:
        return [
            _line(
                (*before, member.name, *after, *[str(member.n)] * counted),
                member,
                study.benchmarks,
                role=member.role,
                on_front=study.on_front(member),
            )
            for member in members
        ]

    return lines(study.members), lines(study.references)


def _merge_line(study: Study, repeats: Repeats, *, counted: bool) -> Line:
    used = study.settings(repeats.first)
    settings = [used.get(name, NOTHING) for name in study.told]
    return _line(
        (job_names(repeats.runs), *settings, *[str(repeats.n)] * counted),
        repeats,
        (*study.benchmarks, GAIN),
        role="merged",
        on_front=study.on_front(repeats),
    )


def _unscored_line(job: Job, told: Sequence[str], *, counted: bool) -> Line:
    settings = [job.settings.get(name, NOTHING) for name in told]
    return Line((job.name, *settings, *[""] * counted), "merged", {}, ended=job.ended)


def _line(
    cells: tuple[str, ...],
    model: Drawn,
    columns: Sequence[str],
    *,
    role: Role,
    on_front: bool,
) -> Line:
    found = {column: model.spread(column) for column in (AVERAGE, *columns)}
    spreads = {column: spread for column, spread in found.items() if spread}
    return Line(cells, role, spreads, model.n, on_front)


def _compared(column: str, score: Estimate) -> float:
    """A gain competes as it is printed."""
    return round(score.value, GAIN_DIGITS) if column == GAIN else score.value


def _sections(*sections: Sequence[Line]) -> tuple[tuple[Line, ...], ...]:
    return tuple(tuple(section) for section in sections if section)
