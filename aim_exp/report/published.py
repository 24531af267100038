"""The paper's tables (Nobari et al. 2025, arXiv 2502.02421), and which of our runs is in them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from aim_exp.errors import AimError
from aim_exp.pareto import hypervolume_gain
from aim_exp.report.rows import Estimate, Report
from aim_exp.report.summary import scored
from aim_exp.report.tables.table import NOTHING, Cell, Column, Row, Table
from aim_exp.report.units import VOLUME, Unit
from aim_exp.store.run_record import MERGED, RunRecord

FILE = Path(__file__).with_name("published_scores.csv")
"""Percent; no method: a member of the population; no omega: the plain merge."""
PERCENT = Unit("percent", 100, digits=2)
"""With one more digit than elsewhere, as the paper prints them."""
CHANGE = Unit("percent", 100, signed=True)
SUITE = "paper"
POPULATION = "llama2_13b"
BENCHMARKS = ("humaneval", "mbpp", "mmlu", "math", "gsm8k", "ifeval")
MEMBERS = ("base", "code", "instruct", "math")

PUBLISHED_POPULATIONS: Mapping[str, tuple[str, ...]] = {
    "code+instruct": ("code", "math"),
    "code+math": ("code", "math"),
    "instruct+math": ("code", "instruct"),
    "code+instruct+math": ("code", "instruct", "math"),
}
"""By the experts merged, the models that the printed gains are against: they alone reproduce
them, though two differ from what the label says. Base is dominated and changes nothing."""

_CHECKPOINT = re.compile(r"(?:.*/)?(?P<method>\w+?)___(?P<experts>.+?)(?P<aim>___AIM)?(?:@.*)?$")
_CHECKPOINT_METHODS = {
    "DARETaskArithmetic": "dare_linear",
    "DARETies": "dare_ties",
    "TaskArithmetic": "task_arithmetic",
    "Ties": "ties",
    "WIDEN": "widen",
}
_CHECKPOINT_EXPERTS = {"Code": "code", "Instruction_Tuned": "instruct", "Math": "math"}
_CHECKPOINT_OMEGA = 0.4
_SETTINGS: Mapping[str, object] = {
    "weight": 1,
    "scale": 1,
    "statistic": "mean_abs",
    "scaling": "identity",
}
"""Those of methods and of AIM that every row of the paper has."""


@dataclass(frozen=True)
class Published:
    """A row: a merge, or a member of the population (no method). Scores in [0, 1]."""

    method: str
    experts: str
    """Those merged, in alphabetical order, joined by `+`; or the member's name."""
    omega: float | None
    scores: Mapping[str, float]

    @property
    def gain_as_published(self) -> float:
        """The hypervolume gain against the population that reproduces the printed one."""
        return self._gain(PUBLISHED_POPULATIONS[self.experts])

    @property
    def gain_by_label(self) -> float:
        """The hypervolume gain against the experts that were merged."""
        return self._gain(tuple(self.experts.split("+")))

    def _gain(self, population: tuple[str, ...]) -> float:
        members = [list(published()["", name, None].scores.values()) for name in population]
        return hypervolume_gain(list(self.scores.values()), members)

    @property
    def percents(self) -> list[Cell]:
        return [Cell.number(PERCENT, score) for score in self.scores.values()]

    @property
    def numbers(self) -> list[Cell]:
        """The scores, then both gains."""
        gains = (self.gain_as_published, self.gain_by_label)
        return [*self.percents, *(Cell.number(VOLUME, gain) for gain in gains)]


Key = tuple[str, str, float | None]
"""Method, experts, omega."""


@cache
def published() -> dict[Key, Published]:
    """Every row, in the order of the paper."""
    rows = {}
    with FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["method"], row["experts"], float(row["omega"]) if row["omega"] else None
            rows[key] = Published(*key, {name: float(row[name]) / 100 for name in BENCHMARKS})
    return rows


@dataclass(frozen=True)
class Pair:
    """One of our models beside the paper's."""

    label: str
    ours: Mapping[str, Estimate]
    paper: Published

    @property
    def benchmarks(self) -> list[str]:
        return [name for name in BENCHMARKS if name in self.ours]

    def difference(self, benchmark: str) -> float:
        """Ours minus the paper's."""
        return self.ours[benchmark].mean - self.paper.scores[benchmark]

    def within(self, benchmark: str) -> bool | None:
        """Whether the difference lies within our standard error; None if that is unknown."""
        stderr = self.ours[benchmark].stderr
        return None if stderr is None else abs(self.difference(benchmark)) <= stderr


def pairs(report: Report) -> list[Pair]:
    """Members and merges that the paper has too.

    AimError for runs of another suite, whose scores are not comparable, or if none is there.
    """
    for job, record in scored(report):
        if (suite := record.choices.get("benchmarks")) != SUITE:
            raise AimError(
                f"{job.folder}: benchmarks={suite} is another protocol than the paper's; only runs "
                f"with benchmarks={SUITE} can be compared with it"
            )
    both = []
    for group in report.groups:
        for row in (*group.members, *group.merges):
            record, merged = row.draws[0].record, row.role == MERGED
            paper = published().get(key_of(record) if merged else ("", row.model, None))
            if paper and row.estimates and (not merged or _has_the_papers_settings(record)):
                name = f"{row.titles} {row.label}" if merged else row.label
                both.append(Pair(f"{name}{group.mark}", row.estimates, paper))
    if not both:
        raise AimError("none of these runs is in the paper's tables")
    return both


def published_table(report: Report) -> Table:
    """Ours, the paper's, and the difference: strong where it is larger than our standard error."""
    both = pairs(report)
    benchmarks = [name for name in BENCHMARKS if any(name in pair.ours for pair in both)]
    columns = (Column("model"), Column(""), *(Column(name, numeric=True) for name in benchmarks))
    return Table(
        columns=(*columns, Column("within", numeric=True)),
        sections=tuple(tuple(_rows(pair, benchmarks)) for pair in both),
        unit="percent",
        margin="our standard error",
        legend=("*: the difference is larger than that",),
    )


def other_populations(report: Report) -> list[str]:
    """The populations of these runs that are not the paper's."""
    names = {record.population.name for _, record in scored(report)}
    return sorted(names - {POPULATION})


def paper_table() -> Table:
    """The paper's own: a line without AIM, one with it, and below it the change in percent."""
    members = (published()["", name, None] for name in MEMBERS)
    sections = [[Row((Cell(m.experts), Cell(), Cell(), *m.percents, Cell(), Cell()))
                 for m in members]]  # fmt: skip
    for experts in PUBLISHED_POPULATIONS:
        rows = [row for row in published().values() if row.method and row.experts == experts]
        names = [experts, *[""] * len(rows)]
        merges = zip(names, rows[::2], rows[1::2], strict=False)
        sections.append([line for merge in merges for line in _merge(*merge)])
    headings = (*BENCHMARKS, "gain", "by label")
    return Table(
        columns=(
            *map(Column, ("experts", "method", "AIM")),
            *(Column(heading, numeric=True) for heading in headings),
        ),
        sections=tuple(map(tuple, sections)),
        unit="percent, and hypervolume gain (d-th root) against base and some experts",
        legend=(
            "gain: against the experts that reproduce the printed gains; in the blocks "
            "code+instruct and instruct+math these are not the merged ones",
            "by label: against the experts that were merged, as everywhere else in this project",
        ),
    )


def _merge(experts: str, plain: Published, relaxed: Published) -> Iterator[Row]:
    yield Row((Cell(experts), Cell(plain.method), Cell("no"), *plain.numbers))
    changes = (
        replace(
            cell,
            below=f"{CHANGE.write((cell.value or 0.0) / old.value - 1)}%" if old.value else NOTHING,
        )
        for cell, old in zip(relaxed.numbers, plain.numbers, strict=True)
    )
    yield Row((Cell(), Cell(), Cell("yes", below="change"), *changes))


def _rows(pair: Pair, benchmarks: list[str]) -> Iterator[Row]:
    def ours(name: str) -> Cell:
        score = pair.ours.get(name)
        return Cell.number(PERCENT, score.mean, score.stderr) if score else Cell(NOTHING)

    def difference(name: str) -> Cell:
        outside = pair.within(name) is False
        text = f"{CHANGE.write(pair.difference(name))}{'*' * outside}"
        return Cell(text, tone="doubt" if outside else "")

    verdicts = [pair.within(name) for name in pair.benchmarks]
    within = Cell(f"{verdicts.count(True)} of {len(verdicts) - verdicts.count(None)}")
    yield Row((Cell(pair.label), Cell("ours"), *map(ours, benchmarks), within))
    paper = (Cell.number(PERCENT, pair.paper.scores[name]) for name in benchmarks)
    yield Row((Cell(), Cell("paper"), *paper, Cell()))
    cells = (difference(name) if name in pair.ours else Cell() for name in benchmarks)
    yield Row((Cell(), Cell("difference"), *cells, Cell()))


def _has_the_papers_settings(record: RunRecord) -> bool:
    """Neither another lambda nor, in AIM's place, a control."""
    groups = ("method", "aim") if record.relaxed else ("method",)
    fields = {name: value for group in groups for name, value in record.config[group].items()}
    return all(fields.get(name, value) == value for name, value in _SETTINGS.items())


def key_of(record: RunRecord) -> Key:
    """Where a run would stand in the paper's tables; a published checkpoint, by its name."""
    checkpoint = _CHECKPOINT.match(str(record.config["method"].get("path", "")))
    if checkpoint and not record.relaxed:
        method = _CHECKPOINT_METHODS.get(checkpoint["method"], "")
        experts = [_CHECKPOINT_EXPERTS.get(e, e) for e in checkpoint["experts"].split("-")]
        omega = _CHECKPOINT_OMEGA if checkpoint["aim"] else None
    else:
        method = record.method.rpartition("/")[2]
        experts = list(record.population.merged)
        omega = record.omega if record.relaxed else None
    return method, "+".join(sorted(experts)), omega
