"""The tables on a terminal, in the widest form that fits, and plain where it is no terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aim_exp.console import natural_width, print_warning
from aim_exp.report.board import (
    NOTHING,
    Board,
    Line,
    run_board,
    study_board,
    unscored_board,
)
from aim_exp.report.compare.comparability import doubts
from aim_exp.report.compare.comparison import Comparison
from aim_exp.report.models import merged_model
from aim_exp.report.repeats import AVERAGE, GAIN
from aim_exp.report.results import Results
from aim_exp.report.settings import label, settings_of
from aim_exp.report.studies import studies
from aim_exp.report.summary import (
    GAIN_MEANS,
    counts,
    gain_text,
    margin_text,
    percent,
    printed,
    repeats,
    run_facts,
)
from aim_exp.store.records import RunRecord

STAR = "★"
ROLE_STYLE = {"base": "", "expert": "", "reference": "dim", "merged": "cyan"}


def print_run(
    console: Console, record: RunRecord, directory: Path, next_command: str | None
) -> None:
    """A run's table, what it comes to, its files and a next step."""
    _print_title(console, label(settings_of(record), ["omega", "experts"]))
    board = run_board(record)
    if board.lines:
        _print_board(console, board)
    facts = run_facts(record) | {"files": _short_path(directory)}
    if (directory / "model").is_dir():
        facts["model"] = _short_path(directory / "model")
    _print_facts(console, facts | ({"try next": next_command} if next_command else {}))
    for warning in dict.fromkeys(record.warnings):
        print_warning(console, warning)
    if record.error:
        _print_error(console, "failed", record.error)


def print_job(console: Console, record: RunRecord) -> None:
    """One line: a job of a sweep, whose table comes at the end."""
    merged = merged_model(record)
    parts = [label(settings_of(record), ["omega"])]
    if merged and merged.average:
        parts.append(f"average {percent(merged.average, error=True)}")
    if record.hypervolume_gain is not None:
        parts.append(f"hypervolume gain {gain_text(record.hypervolume_gain)}")
    console.print(Text(", ".join(parts)), soft_wrap=True)


def print_sweep(
    console: Console,
    results: Results,
    directory: Path,
    comparison: Comparison | None,
    next_command: str | None = None,
) -> None:
    """Tables of what competes, what holds, the files, a next step, and what failed."""
    _print_title(console, counts(results))
    for board in _boards(results):
        _print_board(console, board)
    held = {f"against {comparison.title}": comparison.summary()} if comparison else {}
    same = repeats(results)
    facts = {
        **results.sweeps,
        **({"listed once": same} if same else {}),
        **held,
        "files": _short_path(directory),
        **({"try next": next_command} if next_command else {}),
    }
    _print_facts(console, facts)
    for doubt in doubts(results):
        print_warning(console, doubt)
    for job in results.failed:
        what = f"{job.ended}: {job.folder} ({results.label(job)})"
        _print_error(console, what, job.record.error if job.ended == "failed" else None)


def _print_title(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"), soft_wrap=True)


def _boards(results: Results) -> list[Board]:
    """One for each study; runs without a score stand below the others, or in one of their own."""
    found = studies(results)
    unscored = [job for job in results.jobs if all(job not in study.runs for study in found)]
    if len(found) == 1:
        return [study_board(found[0], found[0].repeats, with_members=True, unscored=unscored)]
    boards = [study_board(study, study.repeats, with_members=True) for study in found]
    return [*boards, unscored_board(results, unscored)] if unscored else boards


def _print_board(console: Console, board: Board) -> None:
    """The first layout that fits the width; the last one fits any, since its text wraps."""
    layouts = [
        _table(board, errors=True, gap=2),
        _table(board, errors=True, gap=1),
        _table(board, errors=False, gap=2),
        _table(board, errors=False, gap=1),
    ]
    if len(board.lead) == 1:
        layouts += [_transposed(board, errors=True), _transposed(board, errors=False)]
    else:
        layouts += [_table(board, errors=True, benchmarks=False), _wrapping(board)]
    fitting = (i for i, it in enumerate(layouts) if natural_width(console, it) <= console.width)
    chosen = next(fitting, len(layouts) - 1)
    console.print()
    if board.title:
        console.print(Text(board.title, style="bold"), soft_wrap=True)
        console.print()
    console.print(layouts[chosen])
    if board.benchmarks:
        console.print()
        _print_legend(console, board, narrow=board.with_gain and chosen >= len(layouts) - 2)


def _print_legend(console: Console, board: Board, *, narrow: bool) -> None:
    lines = [f"{board.unit}; bold: best; {STAR} on the Pareto front of all benchmarks"]
    if board.repeated:
        lines.append(board.precision)
    if board.with_gain:
        lines.append(f"gain: {GAIN_MEANS}")
    if narrow:
        lines.append("scores by benchmark: in the files, or on a wider terminal")
    console.print(Text("\n".join(lines), style="dim"), soft_wrap=True)


def _table(board: Board, *, errors: bool, benchmarks: bool = True, gap: int = 2) -> Table:
    """Models as rows; without `errors` in the cells, the largest of each column below."""
    columns = (AVERAGE, *board.benchmarks) if benchmarks else (AVERAGE,)
    margins = {column: _largest_margin(board, column) for column in columns}
    table = _empty_table(gap)
    for heading in (*board.lead, ""):
        table.add_column(heading, no_wrap=True)
    table.add_column("avg", justify="right", no_wrap=True)
    if board.with_gain:
        table.add_column("gain", justify="right", no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for section in board.sections:
        for line in section:
            average, *scores = [_cell(board, line, column, errors=errors) for column in columns]
            gain = [_gain(board, line)] if board.with_gain else []
            lead = [Text(cell, style=ROLE_STYLE[line.role]) for cell in line.lead]
            table.add_row(*lead, _star(line), average, *gain, *scores)
        table.add_section()
    if not errors and any(margins.values()):
        average, *scores = margins.values()
        gap_cells = [""] if board.with_gain else []
        lead = ["± up to", *[""] * (len(board.lead) - 1)]
        if len(lead) > 1:  # beside the column of jobs
            lead[:2] = ["", "± up to"]
        table.add_row(*lead, "", average, *gap_cells, *scores, style="dim")
    return table


def _wrapping(board: Board) -> Table:
    """A column for the job, one for all its settings, the average and the gain."""
    table = _empty_table(2)
    for heading in (board.lead[0], "settings"):
        table.add_column(heading, overflow="fold")
    for heading in ("", "avg", "gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    for section in board.sections:
        for line in section:
            job, *cells = line.lead
            named = zip(board.lead[1:], cells, strict=True)
            settings = " ".join(c if h == "method" else f"{h}={c}" for h, c in named if c)
            name = Text(job, style=ROLE_STYLE[line.role])
            average = _cell(board, line, AVERAGE, errors=True)
            table.add_row(name, settings, _star(line), average, _gain(board, line))
        table.add_section()
    return table


def _transposed(board: Board, *, errors: bool) -> Table:
    """Benchmarks as rows, models as columns: for many benchmarks."""
    table = _empty_table(gap=2)
    table.add_column("", no_wrap=True)
    for line in board.lines:
        table.add_column(line.lead[0], justify="right", no_wrap=True)
    table.add_row("", *[_star(line) for line in board.lines])
    for column in (AVERAGE, *board.benchmarks):
        cells = [_cell(board, line, column, errors=errors) for line in board.lines]
        table.add_row(column or "average", *cells, end_section=column == AVERAGE)
    return table


def _empty_table(gap: int) -> Table:
    """A rule below the headings, `gap` blanks between columns, and nothing else."""
    return Table(
        box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), show_edge=False, header_style="dim"
    )


def _cell(board: Board, line: Line, column: str, *, errors: bool) -> Text:
    """A score, bold if it is the best of its column; its error dim and aligned."""
    score = line.score(column)
    if score is None:
        ended = line.ended if column == AVERAGE else ""
        return Text(ended, style="red") if ended else Text(NOTHING, style="dim")
    text = Text(printed(column, score.value), style="bold" if board.is_best(line, column) else "")
    if errors and (room := _largest_margin(board, column)):
        margin = margin_text(column, board.margin(line, column))
        text.append(f" {margin:<{len(room)}}", style="not bold dim")
    return text


def _gain(board: Board, line: Line) -> Text:
    return _cell(board, line, GAIN, errors=False)


def _star(line: Line) -> Text:
    return Text(STAR if line.on_front else " ", style="yellow")


def _largest_margin(board: Board, column: str) -> str:
    known = [margin for line in board.lines if (margin := board.margin(line, column)) is not None]
    return margin_text(column, max(known)) if known else ""


def _print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """`name  text` lines; never wrapped by us, so that commands and paths can be copied."""
    width = max(map(len, facts))
    console.print()
    for name, text in facts.items():
        line = Text(f"{name:<{width}}  ", style="dim")
        console.print(line.append(text, style="not dim"), soft_wrap=True)


def _print_error(console: Console, what: str, error: str | None) -> None:
    """`what` failed, and each line of its message below."""
    lines = [what, *(f"  {line}" for line in (error or "").splitlines())]
    console.print(Text("\n".join(lines), style="red"), soft_wrap=True)


def _short_path(directory: Path) -> str:
    """Relative to the working directory where that is below it."""
    relative = os.path.relpath(directory)
    return str(directory) if relative.startswith("..") else relative
