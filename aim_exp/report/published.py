"""The paper's tables (Nobari et al. 2025, arXiv 2502.02421), and which of our runs is in them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aim_exp.errors import AimError
from aim_exp.pareto import hypervolume_gain
from aim_exp.report.models import Estimate
from aim_exp.report.results import Results
from aim_exp.store.records import RunRecord

FILE = Path(__file__).with_name("published_scores.csv")
"""Percent; no method: a member of the population; no omega: the plain merge."""
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


Key = tuple[str, str, float | None]
"""Method, experts, omega."""


@cache
def published() -> dict[Key, Published]:
    """Every row, in the order of the paper."""
    with FILE.open(newline="") as file:
        rows = [
            Published(
                method=row["method"],
                experts=row["experts"],
                omega=float(row["omega"]) if row["omega"] else None,
                scores={name: float(row[name]) / 100 for name in BENCHMARKS},
            )
            for row in csv.DictReader(file)
        ]
    return {(row.method, row.experts, row.omega): row for row in rows}


@dataclass(frozen=True)
class Pair:
    """One of our models beside the paper's."""

    label: str
    ours: Mapping[str, Estimate]
    paper: Published

    @property
    def benchmarks(self) -> list[str]:
        """Those that both have."""
        return [name for name in BENCHMARKS if name in self.ours]

    def difference(self, benchmark: str) -> float:
        """Ours minus the paper's."""
        return self.ours[benchmark].value - self.paper.scores[benchmark]

    def within(self, benchmark: str) -> bool | None:
        """Whether the difference lies within our standard error; None if that is unknown."""
        stderr = self.ours[benchmark].stderr
        return None if stderr is None else abs(self.difference(benchmark)) <= stderr


def pairs(results: Results) -> list[Pair]:
    """Members and merges that the paper has too.

    AimError for runs of another suite, whose scores are not comparable, or if none is there.
    """
    for job in results.jobs:
        if job.population is not None and job.record.suite != SUITE:
            raise AimError(
                f"{job.folder}: benchmarks={job.record.suite} is another protocol than the "
                f"paper's; only runs with benchmarks={SUITE} can be compared with it"
            )
    found = [
        Pair(results.member_name(model, number), model.scores, published()["", model.name, None])
        for number, population in enumerate(results.populations)
        for model in population.models
        if model.name in MEMBERS
    ]
    for job in results.scored:
        row = published().get(key_of(job.record))
        if row and job.merged and _has_the_papers_settings(job.record):
            found.append(Pair(f"{job.folder} {results.label(job)}", job.merged.scores, row))
    if not found:
        raise AimError("none of these runs is in the paper's tables")
    return found


def _has_the_papers_settings(record: RunRecord) -> bool:
    """Neither another lambda nor, in AIM's place, a control."""
    aim = {} if record.omega is None else record.aim
    settings = {**record.method_settings, **aim}
    return all(settings.get(name, value) == value for name, value in _SETTINGS.items())


def key_of(record: RunRecord) -> Key:
    """Where a run would stand in the paper's tables; a published checkpoint, by its name."""
    checkpoint = _CHECKPOINT.match(str(record.method_settings.get("path", "")))
    if checkpoint and record.omega is None:
        method = _CHECKPOINT_METHODS.get(checkpoint["method"], "")
        experts = [_CHECKPOINT_EXPERTS.get(e, e) for e in checkpoint["experts"].split("-")]
        omega = _CHECKPOINT_OMEGA if checkpoint["aim"] else None
    else:
        method = record.method.rpartition("/")[2]
        experts = record.population.get("merged") or []
        omega = record.omega
    return method, "+".join(sorted(map(str, experts))), omega
