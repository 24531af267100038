"""Rows, draws and groups: which runs share a row, what is averaged, what may be ranked together.

Two runs share a row exactly where all that is shown rests on the same: keys of weights and scores
(seeds apart), headline metric, reference points, specialty, members, the experts merged. Settings
only name rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from aim_exp.pareto import non_dominated
from aim_exp.report.choices import Choices, choices
from aim_exp.report.draws import Draw, Pool, pools, seed_words
from aim_exp.report.estimates import AVERAGE, GAIN, Estimate, estimates
from aim_exp.report.load import Job, Runs
from aim_exp.report.paper import MarginKind
from aim_exp.report.settings import (
    ANY,
    DRAWS,
    OF_MERGES,
    OF_RELAXATION,
    WITHOUT_EFFECT,
    Settings,
    as_text,
    begins,
    different,
    is_relaxed,
    label,
    short_names,
    varying,
)
from aim_exp.report.words import few
from aim_exp.store.run_record import Role

__all__ = ["AVERAGE", "GAIN", "Draw", "Estimate", "Group", "Report", "Row", "make_report"]

ERROR = "standard error over items"
OF_RELAXED = ("omega", *OF_RELAXATION)
"""Settings in which a relaxed merge may differ from its plain one."""


@dataclass(frozen=True)
class Row:
    """What tables and figures show as one: a model, or its draws with several seeds."""

    key: str
    """Equal where all that is shown rests on the same."""
    model: str
    """`base`, an expert's or a reference's name; `merged`."""
    role: Role
    label: str
    """In a few words, unique within its group: `ties omega=0.4 density=0.2`; `base`."""
    jobs: tuple[Job, ...]
    """That made it, or scored it: the first stands for what all have in common."""
    draws: tuple[Draw, ...]
    """Each different model once."""
    estimates: Mapping[str, Estimate]
    """By benchmark, `AVERAGE` and, for merges, `GAIN`, where they are known."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """By full key those that the row depends on and that vary among all that is shown, with
    method and omega, as one would write them (`null` for none); empty but for merges."""
    method: str = ""
    """Of a merge."""
    omega: float | None = None
    """1.0 for a plain merge; None where it plays no part."""
    relaxed: bool = False
    on_front: bool = False
    """Whether no other member or merge of its group dominates it, by mean scores."""
    plain: str | None = None
    """Of a relaxed merge, the key of the row of the plain merge of the same; None without one."""

    @property
    def n(self) -> int:
        """Draws of the outermost level."""
        return max((each.n for each in self.estimates.values()), default=1)

    @property
    def titles(self) -> str:
        """Of its jobs, short: `0, 2`, or `0, 1, 2, 3 and 8 more`."""
        return named(self.jobs)


@dataclass(frozen=True)
class Group:
    """Rows that may be ranked together: the same population and protocol, or draws of it."""

    number: int
    """From 1."""
    shared: Mapping[str, str]
    """What tells it from the other groups (`evaluator.max_length` -> `45`); empty if alone."""
    title: str
    """The same in words: `max_length=45`."""
    benchmarks: tuple[str, ...]
    members: tuple[Row, ...]
    """Base and experts."""
    merges: tuple[Row, ...]
    """In the order of their runs, unscored ones (`benchmarks=none`) among them."""
    references: tuple[Row, ...]
    names: tuple[str, ...]
    """Settings, by full key, that tell its merges apart; method and omega first, always."""
    seeds: Mapping[str, int]
    """The seeds that are averaged over, outermost first, with the number of their values."""
    gaps: tuple[str, ...]
    """Why other seeds are not averaged over: a sentence each."""
    margin_kind: MarginKind = "deviation"

    @property
    def mark(self) -> str:
        """` [2]`, after what is shown beside other groups; empty if alone."""
        return f" [{self.number}]" if self.shared else ""

    @property
    def rows(self) -> tuple[Row, ...]:
        return (*self.members, *self.merges, *self.references)

    @property
    def ranked(self) -> tuple[Row, ...]:
        """Scored merges, the best average first."""
        scored = [row for row in self.merges if AVERAGE in row.estimates]
        return tuple(sorted(scored, key=lambda row: -row.estimates[AVERAGE].mean))

    @cached_property
    def has_draws(self) -> bool:
        """Whether any row is the mean of several draws."""
        return any(row.n > 1 for row in self.rows)

    @property
    def margin_words(self) -> str:
        """What follows ± in tables, and what the bars of figures are; empty without any."""
        known = (row.estimates[AVERAGE] for row in self.rows if row.estimates)
        if all(self.margin(estimate) is None for estimate in known):
            return ""
        return f"standard deviation over {self.counted}" if self._by_draws else ERROR

    def margin(self, estimate: Estimate) -> float | None:
        """Of a mean over draws their deviation, where any row has some; else the items' error."""
        if self.margin_kind == "none":
            return None
        return estimate.deviation if self._by_draws else estimate.stderr

    @property
    def _by_draws(self) -> bool:
        return self.has_draws and self.margin_kind == "deviation"

    @property
    def counted(self) -> str:
        """What a mean is over: `n populations, each a mean over 2 seeds`; empty without draws."""
        return seed_words(self.seeds)

    def row(self, key: str) -> Row:
        """The row of this key."""
        return next(row for row in self.rows if row.key == key)


@dataclass(frozen=True)
class Report:
    """All that is shown of some runs."""

    runs: Runs
    groups: tuple[Group, ...]
    unscored: tuple[Job, ...]
    """Jobs that are in no group: failed, running, not run, unreadable."""
    varying: tuple[str, ...]
    """Settings by full key that vary among all that is shown; method and omega first."""
    shorts: Mapping[str, str] = field(default_factory=dict)

    @property
    def merges(self) -> tuple[Row, ...]:
        return tuple(row for group in self.groups for row in group.merges)

    @property
    def benchmarks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for group in self.groups for name in group.benchmarks))

    @cached_property
    def places(self) -> Mapping[Job, tuple[Group, Row]]:
        """By job with a merge, where it is shown; every job that shares a row is there."""
        return {
            job: (group, row) for group in self.groups for row in group.merges for job in row.jobs
        }

    def with_margins(self, kind: MarginKind) -> Report:
        """The same, its numbers with another margin."""
        groups = (replace(group, margin_kind=kind) for group in self.groups)
        return replace(self, groups=tuple(groups))

    @cached_property
    def choices(self) -> Choices:
        """What its runs' `select` chooses."""
        return choices(self)

    def short(self, name: str) -> str:
        """A setting's short name where it is unambiguous: `method.density` -> `density`."""
        return self.shorts.get(name, name)

    def settings(self, job: Job) -> Mapping[str, str]:
        """What can be said of a job in `unscored`, by the keys of `varying`."""
        known = job.settings_with_effect
        return {name: as_text(known[name]) for name in self.varying if name in known}


def margin_words(groups: Iterable[Group]) -> str:
    """Of several groups."""
    return " or ".join(dict.fromkeys(filter(None, (group.margin_words for group in groups))))


def make_report(runs: Runs) -> Report:
    """Rows and groups of `runs`."""
    completed = [job for job in runs.jobs if job.record and job.status == "completed"]
    unscored = tuple(job for job in runs.jobs if job not in completed)
    shorts = short_names({name for job in runs.jobs for name in job.settings_with_effect})
    of_merges = varying(job.settings_with_effect for job in completed)
    of_merges = [n for n in of_merges if begins(n, OF_MERGES) and n not in DRAWS]

    def words(job: Job) -> str:
        return label(_texts(job.settings_with_effect), of_merges, shorts)

    together = pools(completed, words)
    merges = [[(draws, _settings(pool, draws)) for draws in pool.rows("merged")]
              for pool in together]  # fmt: skip
    every = [settings for each in merges for _, settings in each]
    names = varying(every, (job.settings_with_effect for job in unscored))
    parts = zip(together, merges, _shared(together), strict=True)
    groups = (_group(number, *part, names, shorts) for number, part in enumerate(parts, 1))
    return Report(runs, tuple(groups), unscored, names, shorts)


def named(jobs: Iterable[Job]) -> str:
    """`0, 2`, or `0, 1, 2, 3 and 8 more`."""
    return few([job.title for job in jobs])


def _settings(pool: Pool, draws: Sequence[Draw]) -> dict[str, Any]:
    """Of a merge: what its draws have in common, and `ANY` for the rest."""
    averaged = [seed for level in pool.averaged for seed in level]
    each = [draw.job.settings_with_effect for draw in draws]
    settings = {
        name: ANY
        if name in averaged or len({as_text(own.get(name)) for own in each}) > 1
        else value
        for name, value in each[0].items()
    }
    omegas = [draw.record.omega for draw in draws]
    if None not in omegas:  # what a dose leads to differs a little from draw to draw
        settings["omega"] = fmean(omega for omega in omegas if omega is not None)
    elif not is_relaxed(draws[0].record):
        settings["omega"] = None
    return settings | {"method": draws[0].record.method}


def _is_plain_of(plain: Settings, relaxed: Settings, names: Iterable[str]) -> bool:
    """Whether the one is what the other relaxes: the same, as far as both depend on it."""
    shared = (n for n in names if n in plain and n in relaxed and not begins(n, OF_RELAXED))
    return all(plain[n] == relaxed[n] or ANY in (plain[n], relaxed[n]) for n in shared)


def _group(
    number: int,
    pool: Pool,
    merges: Sequence[tuple[Sequence[Draw], Settings]],
    shared: Mapping[str, str],
    names: Sequence[str],
    shorts: Mapping[str, str],
) -> Group:
    """`names` vary among all that is shown."""
    own = varying(settings for _, settings in merges)
    rows = [_merge(pool, *each, names, own, shorts) for each in merges]
    members = [_row(pool, draws) for draws in pool.rows("base", "expert")]
    rivals = [row for row in (*members, *rows) if row.estimates]
    objectives = rivals[0].draws[0].objectives if rivals else ()
    means = [[row.estimates[name].mean for name in objectives] for row in rivals]
    front = {row.key for row, kept in zip(rivals, non_dominated(means), strict=True) if kept}
    labels = Counter(row.label for row in rows)
    plain = [(row, its) for row, (_, its) in zip(rows, merges, strict=True) if not row.relaxed]
    merged = [
        replace(
            row,
            label=row.label if labels[row.label] == 1 else f"{row.label} (job {row.jobs[0].title})",
            on_front=row.key in front,
            plain=next((p.key for p, its in plain if _is_plain_of(its, settings, own)), None)
            if row.relaxed
            else None,
        )
        for row, (_, settings) in zip(rows, merges, strict=True)
    ]
    return Group(
        number=number,
        shared=shared,
        title=", ".join(f"{shorts.get(name, name)}={value}" for name, value in shared.items()),
        benchmarks=tuple(rivals[0].draws[0].model.scores) if rivals else (),
        members=tuple(replace(row, on_front=row.key in front) for row in members),
        merges=tuple(merged),
        references=tuple(_row(pool, draws) for draws in pool.rows("reference")),
        names=own,
        seeds=pool.counts,
        gaps=pool.gaps,
    )


def _merge(
    pool: Pool,
    draws: Sequence[Draw],
    settings: Settings,
    names: Sequence[str],
    own: Sequence[str],
    shorts: Mapping[str, str],
) -> Row:
    """`own` settings vary among the merges of the group."""
    texts = {n: as_text(v) for n in names if (v := settings.get(n, ANY)) is not ANY}
    relaxed = is_relaxed(draws[0].record)
    return replace(
        _row(pool, draws),
        label=label(texts, own, shorts),
        settings=texts,
        method=texts["method"],
        omega=settings.get("omega") if relaxed else 1.0,
        relaxed=relaxed,
    )


def _row(pool: Pool, draws: Sequence[Draw]) -> Row:
    model = draws[0].model
    return Row(
        key=pool.row_key(draws[0]),
        model=model.name,
        role=model.role,
        label=model.name,
        jobs=tuple(dict.fromkeys(draw.job for draw in draws)),
        draws=_different(draws),
        estimates=estimates(draws),
    )


def _different(draws: Sequence[Draw]) -> tuple[Draw, ...]:
    """The first of each model."""
    first: dict[str, Draw] = {}
    for draw in draws:
        model, keys = draw.model, draw.model.keys
        first.setdefault(keys.get("responses") or keys.get("weights") or model.name, draw)
    return tuple(first.values())


def _texts(settings: Settings) -> dict[str, str]:
    return {name: as_text(value) for name, value in settings.items()}


def _shared(together: Sequence[Pool]) -> list[dict[str, str]]:
    """What tells each group from the others: settings, else what else scores rest on, or a number.

    Empty where there is one.
    """
    about = [_protocol_of_pool(pool) for pool in together]

    def shared(names: Iterable[str]) -> list[dict[str, str]]:
        return [{name: its.get(name, "–") for name in names} for its in about]

    def kinds(names: Iterable[str]) -> int:
        return len({tuple(one.values()) for one in shared(names)})

    names = [n for n in varying(map(_settings_of_pool, together)) if n not in ("method", "omega")]
    for name in varying(about):
        if kinds(names) < kinds([*names, name]):
            names.append(name)
    alone = kinds(names) == len(together)
    return [
        one if alone else {**one, "group": str(number)}
        for number, one in enumerate(shared(names), 1)
    ]


def _settings_of_pool(pool: Pool) -> dict[str, str]:
    """Those that base and experts depend on; several values of one as `0/1`."""
    jobs = dict.fromkeys(draw.job for draw in pool.draws)
    values = different(job.settings for job in jobs)
    idle = (*OF_MERGES, *WITHOUT_EFFECT)
    return {name: "/".join(several) for name, several in values.items() if not begins(name, idle)}


def _protocol_of_pool(pool: Pool) -> dict[str, str]:
    """Its settings, and all else that its scores depend on."""
    record = pool.draws[0].record
    about: dict[str, Any] = {"scored": " + ".join(record.benchmarks)}
    for name, benchmark in record.benchmarks.items():
        about |= {f"{name}.{key}": value for key, value in benchmark.protocol.items()}
        about[f"{name}.reference_point"] = benchmark.reference_point
        about[f"{name}.objective"] = benchmark.objective
    about |= {f"{n}.metric": s.metric for m in record.models for n, s in m.scores.items()}
    about |= {f"specialty.{name}": list(own) for name, own in record.population.specialty.items()}
    about |= {f"{model.name}.identity": (model.identity or "")[:8] for model in record.members}
    return {**_settings_of_pool(pool), **_texts(about)}
