"""What each model is compared with: its twin, another run, or a model that was scored beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from aim_exp.errors import AimError, did_you_mean
from aim_exp.report.draws import Draw
from aim_exp.report.grouped import grouped
from aim_exp.report.rows import Group, Report, Row
from aim_exp.report.settings import EXPERTS, OF_MERGES, as_text, begins, is_relaxed, varying

SHOWN = 4


@dataclass(frozen=True, eq=False)
class Candidate:
    """A scored model, and where it is shown."""

    draw: Draw
    row: Row
    group: Group

    @cached_property
    def settings(self) -> dict[str, str]:
        """Of a merge, those that it depends on, seeds among them."""
        record = self.draw.record
        known = {**self.draw.job.settings_with_effect, "method": record.method}
        if not is_relaxed(record):  # omega=1 is the plain merge, too
            known["omega"] = None
        return {name: as_text(value) for name, value in known.items()}

    def label(self, report: Report) -> str:
        """The row's, with the seeds that its group averages over."""
        own = {seed: self.draw.seeds[seed] for seed in self.group.seeds if seed in self.draw.seeds}
        return " ".join([self.row.label, *(f"{report.short(s)}={v}" for s, v in own.items())])


@dataclass(frozen=True)
class Against:
    """What merges are compared with: each with its twin, or all with one model.

    A twin has these `settings` and else the same as far as both depend on it: a plain merge has
    none of AIM's settings, other methods have other fields. Members and protocol are the same too,
    but for what is set.
    """

    title: str
    """`the plain merge`, `method=ties`, `base`."""
    own: str
    """Of one merge: `its plain merge`, `its twin with method=ties`, `base`."""
    sought: str
    """`twin with omega=null`, `base`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    models: tuple[Candidate, ...] = ()
    """Without settings: a row's draws, or a member's in each population."""

    def chooser(self, merges: Sequence[Candidate]) -> Chooser:
        """What gives each merge its baseline, if it has one.

        Twins by tables of the settings that they depend on: many merges take no longer each.
        """
        if not self.settings:
            return self._model
        own = tuple(self.settings)
        names = [n for n in varying(m.settings for m in merges) if not begins(n, own)]
        anywhere = any(not begins(name, OF_MERGES) for name in own)
        patterns = grouped(
            (tuple(name for name in names if name in each.settings), each)
            for each in self.baselines(merges)
        )

        def place(merge: Candidate, shared: Iterable[str]) -> tuple[object, ...]:
            group = 0 if anywhere else merge.group.number
            return (group, *(merge.settings[name] for name in shared))

        @cache
        def table(
            pattern: tuple[str, ...], shared: tuple[str, ...]
        ) -> dict[tuple[object, ...], Candidate]:
            return {place(each, shared): each for each in reversed(patterns[pattern])}

        def choose(merge: Candidate) -> Candidate | None:
            for pattern in patterns:
                shared = tuple(name for name in pattern if name in merge.settings)
                if twin := table(pattern, shared).get(place(merge, shared)):
                    return twin
            return None

        return choose

    def _model(self, merge: Candidate) -> Candidate | None:
        """The draw with the same seeds: of a member in its own population, of a merge anywhere."""
        groups = {each.group.number for each in self.models}
        anywhere = len(groups) == 1 and all(each.draw.is_merge for each in self.models)
        if anywhere and len(self.models) == 1:
            return self.models[0]
        own, seeds = (
            (c for c in self.models if anywhere or c.group is merge.group),
            merge.draw.seeds,
        )
        return next(
            (c for c in own if all(seeds.get(s, v) == v for s, v in c.draw.seeds.items())), None
        )

    def baselines(self, merges: Sequence[Candidate]) -> Sequence[Candidate]:
        """All that merges may be compared with."""
        if not self.settings:
            return self.models
        return [m for m in merges if self.settings.items() <= m.settings.items()]


Chooser = Callable[[Candidate], Candidate | None]
PLAIN = Against("the plain merge", "its plain merge", "twin with omega=null", {"omega": "null"})
"""What a relaxed merge is compared with, unless another baseline is asked for."""


def base_of(report: Report) -> Against:
    """Base, in each population."""
    return Against("base", "base", "base", models=tuple(_members(report).get("base", ())))


def candidates(report: Report) -> list[Candidate]:
    """Every different scored model, in the order of groups and rows."""
    return [
        Candidate(draw, row, group)
        for group in report.groups
        for row in group.rows
        for draw in row.draws
        if draw.model.scores
    ]


def merges_of(report: Report) -> list[Candidate]:
    """Those that a run merged."""
    return [each for each in candidates(report) if each.draw.is_merge]


def find_pairs(
    report: Report, against: Against
) -> tuple[list[tuple[Candidate, Candidate]], list[Candidate]]:
    """Each merge that is no baseline itself with its own, and those without one."""
    merges = merges_of(report)
    themselves = {baseline.row.key for baseline in against.baselines(merges)}
    choose = against.chooser(merges)
    chosen = [(merge, choose(merge)) for merge in merges if merge.row.key not in themselves]
    pairs = [(merge, baseline) for merge, baseline in chosen if baseline]
    return pairs, [merge for merge, baseline in chosen if not baseline]


def parse_against(report: Report, texts: Sequence[str]) -> Against:
    """`omega=null`, `scaling=uniform`: a twin with these settings; or one name: that model.

    A merge has three names: its job's number or folder, and its label (`ties omega=0.2`). AimError
    if it is not here, or if several have the label.
    """
    models = {text: _named(report, text) for text in texts}
    names = [text for text, model in models.items() if model or not _is_setting(text)]
    if not names:
        return _twin(report, texts)
    if len(texts) > 1:
        raise AimError(f"--against {names[0]}: the name of a model goes with no other --against")
    if model := models[names[0]]:
        return model
    members, labels = _members(report), list(dict.fromkeys(row.label for row in report.merges))
    titles = [job.title for row in report.merges for job in row.jobs]
    hint = did_you_mean(names[0], [*members, *labels])
    runs = ", ".join(titles) if len(titles) <= SHOWN else f"{titles[0]} to {titles[-1]}"
    raise AimError(
        f"--against {names[0]}: no such model{hint}; there are "
        f"{''.join(f'{name}, ' for name in members)}the runs {runs}, by number or label "
        f"({', '.join(labels[:2])}), and twins by SETTING=VALUE, as in omega=null"
    )


def parse_names(report: Report, option: str, names: Iterable[str]) -> tuple[str, ...]:
    """Settings by their full names; a short one (`density`) will do. AimError if not here."""
    known = dict.fromkeys(name for merge in merges_of(report) for name in merge.settings)
    full = {report.short(name): name for name in known} | {name: name for name in known}
    if EXPERTS in known:
        full["experts"] = EXPERTS
    parsed = []
    for name in names:
        if name not in full:
            varying = ", ".join(map(report.short, report.varying))
            raise AimError(
                f"{option} {name}: the runs have no such setting{did_you_mean(name, full)}; those "
                f"that vary are: {varying}"
            )
        parsed.append(full[name])
    return tuple(parsed)


def one_model(report: Report, name: str, option: str) -> Draw:
    """Base, an expert, a reference or a merge, by the names of `parse_against`; its first draw.

    AimError if there is none.
    """
    if (named := _named(report, name)) is None:
        known = ", ".join(
            [*_members(report), *(merge.row.label for merge in merges_of(report)[:2])]
        )
        raise AimError(f"{option} {name}: no model is called so; names are as in: {known}")
    return named.models[0].draw


def _is_setting(text: str) -> bool:
    """`omega=null` is one, `ties omega=0.2` a label."""
    name, equals, _ = text.partition("=")
    return bool(equals) and " " not in name


def _twin(report: Report, texts: Sequence[str]) -> Against:
    """By full names, with values as the runs write them."""
    settings = {}
    for text in texts:
        name, _, value = text.partition("=")
        (full,) = parse_names(report, f"--against {text}:", [name])
        values = dict.fromkeys(m.settings[full] for m in merges_of(report) if full in m.settings)
        if full == "omega" and _equal(value, "1"):
            value = "null"
        settings[full] = next((known for known in values if _equal(known, value)), "")
        if not settings[full]:
            there_are = ", ".join(values) or "none"
            raise AimError(f"--against {text}: no scored run has it; there are: {there_are}")
    if settings == PLAIN.settings:
        return PLAIN
    words = ", ".join(f"{report.short(name)}={value}" for name, value in settings.items())
    return Against(words, f"its twin with {words}", f"twin with {words}", settings)


def _named(report: Report, name: str) -> Against | None:
    """The members of this name, or else the merge, whose name may look like a setting."""
    members = _members(report)
    if name in members:
        return Against(name, name, name, models=tuple(members[name]))
    merges = merges_of(report)
    by_job = [m for m in merges if any(name in (j.title, j.name, j.folder) for j in m.row.jobs)]
    here = by_job or [merge for merge in merges if merge.row.label == name]
    rows = {merge.row.key: merge for merge in here}
    groups = {merge.group.number for merge in rows.values()}
    if len(rows) > len(groups):
        jobs = ", ".join(merge.row.titles for merge in rows.values())
        raise AimError(f"--against {name}: {len(rows)} runs have this label; name one: {jobs}")
    if not here:
        return None
    title = f"{here[0].row.titles} ({here[0].row.label})"
    return Against(title, title, title, models=tuple(here))


def _members(report: Report) -> dict[str, list[Candidate]]:
    """By name, every draw of what was scored beside the merges."""
    return grouped((c.row.model, c) for c in candidates(report) if not c.draw.is_merge)


def _equal(known: str, value: str) -> bool:
    try:
        return float(known) == float(value)
    except ValueError:
        return known == value
