"""The tables of a paper, computed: No and Yes rows with the change in percent, as in the paper.

Nobari et al. 2025, table 1: a merge without AIM, the same with it, and what that changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from aim_exp.report.repeats import AVERAGE, GAIN, Drawn, Member, Repeats, Spread
from aim_exp.report.results import Results
from aim_exp.report.seeds import counted_words
from aim_exp.report.settings import as_words
from aim_exp.report.studies import Merge, Study, studies
from aim_exp.report.summary import printed

Kind = Literal["member", "plain", "relaxed", "reference"]
WAYS: dict[Kind, str] = {"plain": "without", "relaxed": "with"}


@dataclass(frozen=True)
class Entry:
    """A model's row: what names it, and its scores by column; seeds taken together."""

    kind: Kind
    experts: str
    """Those merged; or the name of a model that is none."""
    method: str
    aim: str
    """`No`, `Yes`, or how it was applied where that varies."""
    omega: float | None
    n: int
    """How many models: draws with other seeds."""
    spreads: Mapping[str, Spread]
    best: frozenset[str] = frozenset()
    """Columns in which no other merge of the same experts is better, as printed."""
    changes: Mapping[str, float] | None = None
    """By column, relative to the plain merge, in percent; None without one."""


@dataclass(frozen=True)
class ScoreTable:
    """Models by benchmarks: base and experts, then a block for each combination of experts."""

    columns: tuple[str, ...]
    """Benchmarks, the average, the hypervolume gain."""
    blocks: tuple[tuple[Entry, ...], ...]
    omegas: tuple[float, ...]
    shared: Mapping[str, str]
    """Which population and benchmarks these are, where there are several."""
    draws: Mapping[str, int]
    """The seeds that rows are means over, with the number of their values."""

    @property
    def entries(self) -> list[Entry]:
        """Of all blocks."""
        return [entry for block in self.blocks for entry in block]

    @property
    def repeated(self) -> bool:
        """Whether seeds were swept: the number of models is told then."""
        return any(entry.n > 1 for entry in self.entries)

    @property
    def with_experts(self) -> bool:
        """Whether several combinations of experts were merged."""
        return len({entry.experts for entry in self.entries if entry.method}) > 1

    def error(self, column: str) -> float | None:
        """The largest standard error in a column."""
        spreads = (entry.spreads.get(column) for entry in self.entries)
        return max((s.stderr for s in spreads if s and s.stderr is not None), default=None)

    @property
    def caption(self) -> str:
        """What the table shows, in sentences."""
        about = f" ({as_words(self.shared)})" if self.shared else ""
        omega = f" with omega = {self.omegas[0]:g}" if len(self.omegas) == 1 else ""
        differ = len({entry.n for entry in self.entries}) > 1
        once = "; a model counts once for all values of a seed that it does not depend on" * differ
        seeds = f" Mean ± standard deviation over {counted_words(self.draws)}{once}."
        kinds = {entry.kind for entry in self.entries}
        ways = [word for kind, word in WAYS.items() if kind in kinds]
        changed = any(entry.changes for entry in self.entries)
        change = " Change: relative to the plain merge, in percent." if changed else ""
        return (
            f"Merges {' and '.join(ways)} AIM{omega}{about}, scores in percent.{change} Bold: best "
            "merge of the same experts. Gain: hypervolume gain over base and the merged experts."
            f"{seeds if self.repeated else ''} Standard error: the largest in the column, of one "
            "model over the benchmark items."
        )


def score_tables(results: Results) -> list[ScoreTable]:
    """One for each study; none where nothing was merged and scored."""
    return [_table(study) for study in studies(results) if study.merges]


def _table(study: Study) -> ScoreTable:
    columns = (*study.benchmarks, AVERAGE, GAIN)
    by_experts: dict[str, list[Merge]] = {}
    for merge in study.merges:
        by_experts.setdefault(merge.first.settings.get("experts", ""), []).append(merge)
    merged = [
        _with_best([entry for merge in merges for entry in _merge(study, merge, columns)], columns)
        for merges in by_experts.values()
    ]
    first = [_member(member, columns, "member") for member in study.members]
    last = [_member(member, columns, "reference") for member in study.references]
    return ScoreTable(
        columns=tuple(
            c for c in columns if any(c in entry.spreads for block in merged for entry in block)
        ),
        blocks=tuple(tuple(block) for block in (first, *merged, last) if block),
        omegas=tuple(study.omegas),
        shared=study.shared,
        draws=study.draws,
    )


def _member(member: Member, columns: Sequence[str], kind: Kind) -> Entry:
    return Entry(
        kind=kind,
        experts=member.name,
        method="",
        aim="",
        omega=None,
        n=member.n,
        spreads=_spreads(member, columns),
    )


def _spreads(model: Drawn, columns: Sequence[str]) -> dict[str, Spread]:
    """By column, what the model has."""
    found = {column: model.spread(column) for column in columns}
    return {column: spread for column, spread in found.items() if spread}


def _merge(study: Study, merge: Merge, columns: Sequence[str]) -> Iterator[Entry]:
    plain = _entry(study, merge.plain, columns, {}) if merge.plain else None
    if plain:
        yield plain
    for repeats in merge.relaxed:
        yield _entry(study, repeats, columns, plain.spreads if plain else {})


def _entry(
    study: Study, repeats: Repeats, columns: Sequence[str], before: Mapping[str, Spread]
) -> Entry:
    record, settings = repeats.first.record, study.settings(repeats.first)
    spreads = _spreads(repeats, columns)
    relaxed = record.omega is not None
    changes = {
        column: 100 * (spread.mean / before[column].mean - 1)
        for column, spread in spreads.items()
        if column in before and before[column].mean
    }
    return Entry(
        kind="relaxed" if relaxed else "plain",
        experts=settings.get("experts", ""),
        method=study.label(repeats.first, leave_out=("experts", "omega", "aim.", "calibration")),
        aim=(study.relaxation(repeats.first) or "Yes") if relaxed else "No",
        omega=record.omega,
        n=repeats.n,
        spreads=spreads,
        changes=changes or None,
    )


def _with_best(entries: Sequence[Entry], columns: Sequence[str]) -> list[Entry]:
    """With what is best as printed: equal numbers are all best."""
    rounded = [{c: float(printed(c, s.mean)) for c, s in e.spreads.items()} for e in entries]
    best = {c: max((each[c] for each in rounded if c in each), default=None) for c in columns}
    return [
        replace(entry, best=frozenset(c for c, value in each.items() if value == best[c]))
        for entry, each in zip(entries, rounded, strict=True)
    ]
