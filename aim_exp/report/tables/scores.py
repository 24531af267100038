"""Models with their scores: a run, a group's standings and ranking, and the paper's own form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from aim_exp.errors import AimError
from aim_exp.report.choices import Choice
from aim_exp.report.front import front_probability
from aim_exp.report.grouped import grouped
from aim_exp.report.load import Job
from aim_exp.report.paper import AS_IT_IS, Paper
from aim_exp.report.rows import AVERAGE, GAIN, Estimate, Group, Report
from aim_exp.report.rows import Row as Model
from aim_exp.report.settings import EXPERTS, OF_RELAXATION, begins
from aim_exp.report.summary import job_label
from aim_exp.report.tables.table import NOTHING, STAR, Cell, Column, Row, Table, Tone
from aim_exp.report.units import PERCENT, unit
from aim_exp.statistics import LEVEL

GAIN_MEANS = "gain: hypervolume gain over base and the merged experts"
RANKED = f"bold: best; {STAR}: on the Pareto front of all benchmarks"
CHOSEN = "‡"
CHOSEN_MEANS = f"{CHOSEN}: chosen by select, not by these numbers"
SURE = f"beside {STAR}, how often it would be with other items of the same kind"
TONES: dict[str, Tone] = {
    "base": "member",
    "expert": "member",
    "reference": "dim",
    "merged": "merged",
}
AIM_SETTINGS = ("omega", *OF_RELAXATION)
"""What a plain merge does not depend on."""


def run_table(report: Report, group: Group) -> Table:
    """One run: base and experts, the merged model, references."""
    merged = [replace(row, model="merged") for row in group.merges if row.estimates]
    return _members(report, group, group.members, merged, group.references)


def members_table(report: Report, group: Group) -> Table:
    """Base and experts, and the references."""
    return _members(report, group, group.members, group.references)


def standings(report: Report, group: Group, others: Sequence[Job] = ()) -> Table:
    """All that competes, merges in the order of their runs; below them `others`, unscored."""
    form = _of_merges(report, group)
    members, references = (
        [form.row(row, ("", row.model)) for row in each]
        for each in (group.members, group.references)
    )
    merges = [*map(form.merge, group.merges), *map(form.unscored, others)]
    return form.table(members, merges, references)


def leaderboard(report: Report, group: Group) -> Table:
    """The scored merges, the best average first."""
    form = _of_merges(report, group)
    return form.table(map(form.merge, group.ranked))


def unscored_table(report: Report, jobs: Sequence[Job]) -> Table:
    """Jobs of no group: what they were to be, and how they ended."""
    rows = (Row((Cell(job.title), Cell(job_label(report, job)), _ended(job))) for job in jobs)
    return Table((Column("job"), Column("run"), Column("ended")), (tuple(rows),))


def effect_table(
    report: Report, group: Group, paper: Paper = AS_IT_IS, held: Collection[tuple[str, str]] = ()
) -> Table:
    """A merge without AIM, the same with it, and what that changed (Nobari et al. 2025, table 1).

    Base and experts first, then a block for each combination of experts, in which the best is
    marked; references last. `held`: rows, by key, and quantities whose change against the plain
    merge is a claim that holds.
    """
    scored = (row for row in group.merges if row.estimates)
    blocks = grouped((row.settings.get(EXPERTS, ""), row) for row in scored)
    experts = ("Experts",) * (len(blocks) > 1)
    known = {name: name for name in (*group.benchmarks, AVERAGE)} | {"gain": GAIN}
    if unknown := [name for name in paper.columns if name not in known]:
        names = ", ".join(known)
        raise AimError(f"--labels: columns: {unknown[0]}: there is none; there are: {names}")
    quantities = tuple(known[name] for name in paper.columns or known)  # as in published tables
    lead = (*experts, "Method", "AIM")
    form = _Form(report, group, lead, quantities, star=False)
    names = [name for name in group.names if not begins(name, (*AIM_SETTINGS, EXPERTS))]
    plain = {row.key: row for row in group.merges if not row.relaxed}
    order = {row.key: number for number, row in enumerate(group.merges)}

    def place(row: Model) -> tuple[int, bool, int]:
        """Each plain merge, then what AIM makes of it."""
        return order.get(row.plain or "", order[row.key]), row.relaxed, order[row.key]

    def merge(row: Model) -> Row:
        lead = [row.settings.get(EXPERTS, "")] * len(experts)
        lead += [_words(report, row, names), _relaxation(report, group, row)]
        shown, before = form.row(row, lead), plain.get(row.plain or "")
        if before is None:
            return shown
        below = [*[""] * (len(form.lead) - 1), "change", *[""] * group.has_draws]
        below += [
            _change(each, before.estimates.get(each), row.estimates.get(each), paper.changes)
            + "*" * (paper.marks and (row.key, each) in held)
            for each in quantities
        ]
        cells = (replace(c, below=b) for c, b in zip(shown.cells, below, strict=True))
        return replace(shown, cells=tuple(cells))

    def members(rows: Iterable[Model]) -> list[Row]:
        return [form.row(row, (row.model,), competes=False) for row in rows]

    table = form.table(
        members(group.members),
        *(map(merge, sorted(rows, key=place)) for rows in blocks.values()),
        members(group.references),
    )
    marked = (replace(table, sections=(each,)).with_best().sections for each in table.sections)
    shown = replace(table, sections=tuple(chain(*marked)))
    headings = (replace(c, heading=paper.write(c.heading)) for c in table.columns)
    return replace(
        shown.map_cells(lambda cell: replace(cell, text=paper.write(cell.text))),
        columns=tuple(headings),
        legend=tuple(_caption(group, table, paper, held)),
    )


@dataclass(frozen=True)
class _Form:
    """What the rows of a table have in common: what names them, and their quantities."""

    report: Report
    group: Group
    lead: tuple[str, ...]
    """Headings."""
    quantities: tuple[str, ...]
    star: bool = True

    def row(self, row: Model, lead: Sequence[str], *, competes: bool = True) -> Row:
        """`lead` may be shorter than its headings."""
        names = [Cell(text, tone=TONES[row.role]) for text in lead]
        names += [Cell()] * (len(self.lead) - len(names))
        names += [Cell(str(row.n))] * self.group.has_draws
        star = [self._star(row)] * self.star
        numbers = (self._number(row, quantity) for quantity in self.quantities)
        return Row((*names, *star, *numbers), competes and row.role != "reference", key=row.key)

    def merge(self, row: Model) -> Row:
        """By its jobs and settings, with a mark if it was chosen."""
        settings = (row.settings.get(name, NOTHING) for name in self.group.names)
        shown = self.row(row, [row.titles, *settings])
        if row.key not in self.report.choices.keys:
            return shown
        first, *others = shown.cells
        return replace(shown, cells=(replace(first, detail=CHOSEN), *others))

    def _star(self, row: Model) -> Cell:
        if not row.on_front:
            return Cell()
        sure = self.sure.get(row.key)
        return Cell(STAR, "" if sure is None else f"{sure:.2f}", tone="mark")

    @cached_property
    def sure(self) -> Mapping[str, float]:
        """By row's key, how often it is on the front when the items are drawn again."""
        return front_probability(self.group) if self.star else {}

    def unscored(self, job: Job) -> Row:
        """A job without scores."""
        settings = self.report.settings(job)
        lead = (job.title, *(settings.get(name, NOTHING) for name in self.group.names))
        names = [Cell(text, tone="merged") for text in lead] + [Cell()] * self.group.has_draws
        numbers = [_ended(job), *[Cell(NOTHING, tone="dim")] * (len(self.quantities) - 1)]
        return Row((*names, *[Cell()] * self.star, *numbers), competes=False)

    def table(self, *sections: Iterable[Row]) -> Table:
        shown = tuple(filter(None, map(tuple, sections)))
        chosen = any(row.cells[0].detail == CHOSEN for row in chain(*shown))
        return Table(
            columns=(
                *map(Column, self.lead),
                *[Column("n", numeric=True, about=self.group.counted)] * self.group.has_draws,
                *[Column(STAR, about="on the Pareto front of all benchmarks")] * self.star,
                *(_column(quantity) for quantity in self.quantities),
            ),
            sections=shown,
            title=group_title(self.group),
            unit="percent",
            margin=self.group.margin_words,
            detail=SURE if self.sure else "",
            legend=(
                RANKED,
                *[GAIN_MEANS] * (GAIN in self.quantities),
                *self._precision(),
                *[CHOSEN_MEANS] * chosen,
            ),
        ).with_best()

    def _number(self, row: Model, quantity: str) -> Cell:
        estimate = row.estimates.get(quantity)
        if estimate is None:
            return Cell("" if quantity == GAIN and row.role != "merged" else NOTHING, tone="dim")
        left_out = quantity == GAIN and not self.group.has_draws
        margin = None if left_out else self.group.margin(estimate)
        return Cell.number(unit(quantity), estimate.mean, margin)

    def _precision(self) -> Iterator[str]:
        """Of one model, which a table of means does not show."""
        rows = [row.estimates for row in self.group.rows]
        average, *others = (
            max((each[name].stderr or 0.0 for each in rows if name in each), default=0.0)
            for name in (AVERAGE, *self.group.benchmarks)
        )
        if self.group.has_draws and average and others:
            yield (
                "standard error of one model over the items: up to "
                f"{PERCENT.write(max(others))} (a benchmark), {PERCENT.write(average)} (average)"
            )


def group_title(group: Group) -> str:
    """`[2] max_length=45`; empty where there is one group."""
    return f"[{group.number}] {group.title}" if group.title else ""


def _of_merges(report: Report, group: Group) -> _Form:
    lead = ("job", *map(report.short, group.names))
    return _Form(report, group, lead, (AVERAGE, GAIN, *group.benchmarks))


def _members(report: Report, group: Group, *sections: Iterable[Model]) -> Table:
    form = _Form(report, group, ("model",), (AVERAGE, *group.benchmarks))
    return form.table(*([form.row(row, (row.model,)) for row in each] for each in sections))


def _column(quantity: str) -> Column:
    if quantity == AVERAGE:
        return Column("avg", numeric=True, about="plain mean over the benchmarks")
    if quantity == GAIN:
        return Column("gain", numeric=True, about=GAIN_MEANS)
    return Column(quantity, numeric=True, optional=True)


def _ended(job: Job) -> Cell:
    return Cell(job.ended_early, tone="bad") if job.ended_early else Cell("unscored")


def _words(report: Report, row: Model, names: Iterable[str]) -> str:
    """`ties density=0.2`."""
    named = {name: row.settings[name] for name in names if name in row.settings}
    words = (v if n == "method" else f"{report.short(n)}={v}" for n, v in named.items())
    return " ".join(words)


def _relaxation(report: Report, group: Group, row: Model) -> str:
    """`No`; `Yes`, or what varies in how AIM was applied: `omega=0.4 scaling=uniform`."""
    if not row.relaxed:
        return "No"
    names = [name for name in group.names if begins(name, AIM_SETTINGS) and name in row.settings]
    alone = names == ["omega"] and len(_omegas(group)) == 1
    return "Yes" if alone else _words(report, row, names)


def _omegas(group: Group) -> list[float]:
    return sorted({row.omega for row in group.merges if row.relaxed and row.omega is not None})


def _change(quantity: str, before: Estimate | None, after: Estimate | None, kind: str) -> str:
    if not before or not after:
        return NOTHING
    if kind == "points":
        return unit(quantity, signed=True).write(after.mean - before.mean)
    if not before.mean:  # nothing is a percentage of zero
        return NOTHING
    return f"{100 * (after.mean / before.mean - 1):+.1f}%"


def _caption(
    group: Group, table: Table, paper: Paper, held: Collection[tuple[str, str]]
) -> Iterator[str]:
    kinds = {row.relaxed for row in group.merges}
    ways = " and ".join(
        word for kind, word in ((False, "without"), (True, "with")) if kind in kinds
    )
    omegas = _omegas(group)
    yield f"merges {ways} AIM" + (f" with omega = {omegas[0]:g}" if len(omegas) == 1 else "")
    if any(cell.below for row in table.rows for cell in row.cells):
        kinds = {"points": "against the plain merge, in points",
                 "percent": "relative to the plain merge, in percent"}  # fmt: skip
        yield f"change: {kinds[paper.changes]}"
        if held and paper.marks:
            yield f"*: holds, by Holm's adjusted p below {1 - LEVEL:.2g} and by its interval"
    yield "bold: best merge of the same experts"
    yield from (sentence for sentence in table.legend if sentence != RANKED)


def choice_table(report: Report) -> Table | None:
    """What was chosen and what that scores where it had no say, the best of that first.

    Beside it what is best on all items. None where nothing was chosen.
    """
    made = sorted(report.choices.made, key=lambda choice: -choice.average_reported)
    if not made:
        return None
    counted = any(choice.deviation is not None for choice in made)
    cut = any(choice.candidates < choice.available for choice in made)

    def row(choice: Choice) -> Row:
        of = f"{choice.candidates} of {choice.available}" if cut else str(choice.candidates)
        best, *chosen = (
            _words(report, row, choice.settings) or NOTHING
            for row in (choice.best_on_all, *choice.chosen)
        )
        counts, several = Counter(chosen), len(chosen)
        words = [f"{each} ({n} of {several})" * (n < several) or each for each, n in counts.items()]
        reported = Cell.number(PERCENT, choice.average_reported, choice.deviation)
        return Row(
            (
                Cell(choice.name),
                Cell(", ".join(words)),
                Cell(of, value=choice.candidates),
                replace(reported, strong=True),
                Cell(choice.on if choice.candidates > 1 else NOTHING),
                Cell.number(PERCENT, choice.average_when_chosen),
                Cell(best + " †" * (choice.candidates > 1)),
                Cell.number(PERCENT, choice.average_on_all),
            )
        )

    return Table(
        columns=(
            Column("merge"),
            Column("chosen"),
            Column("settings", numeric=True, about="that it was chosen among"),
            Column("reported", numeric=True, about="on what had no say in the choice"),
            Column("chosen on", optional=True),
            Column("there", numeric=True, optional=True, about="where it was chosen"),
            Column("best on all items", optional=True),
            Column("average", numeric=True, optional=True),
        ),
        sections=(tuple(map(row, made)),),
        unit="averages, percent",
        margin="standard deviation over draws" if counted else "",
        legend=(
            "reported: on what had no say in the choice, the other items or the population itself: "
            "the number to quote for a tuned setting",
            *["settings: a draw of so many, the same number for all"] * cut,
            "†: chosen on its own test items, so partly luck",
        ),
    )
