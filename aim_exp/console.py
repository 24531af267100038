"""The terminal: one console, one place for progress, plain lines where it is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.filesize import pick_unit_and_suffix
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)

WORTH_A_LINE = 1.0
"""Seconds; a stage that took less leaves no line: a sweep of small models has hundreds."""
REPORT_SECONDS = 60.0
"""How often a stage says how far it is where there is no terminal."""
SPEED_SECONDS = 120.0
"""The past that the time left is judged by: some batches of answers, and soon no cached ones."""
EXACT_COUNTS = 100_000
"""Totals from here on are shown in thousands, millions or billions."""

Advance = Callable[[int], None]

_job = ""


def begin_job(name: str) -> None:
    """Print what is run from here on; a terminal shows it above the progress, too."""
    global _job
    _job = name
    console.print(Text(name, style="bold"), soft_wrap=True)


def print_warning(to: Console, text: str) -> None:
    """A yellow line, never wrapped by us."""
    to.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)


def print_error(to: Console, text: str, of: str = "") -> None:
    """`error: ...` for each line of `text`, behind what it is `of`; never wrapped by us."""
    for line in text.splitlines():
        to.print(Text.assemble(("error:", "red"), f" {of}{line}"), soft_wrap=True)


def natural_width(to: Console, table: Table) -> int:
    """The columns that a table needs, however narrow the terminal."""
    unlimited = to.options.update_width(10_000)
    return Measurement.get(to, unlimited, table).maximum


def print_whole(to: Console, table: Table) -> None:
    """Print a table at the width that it needs, however narrow the terminal: nothing is cut."""
    table.width = natural_width(to, table)
    to.print(table, crop=False)


def size_text(count: float) -> str:
    """Bytes for people: `26.0 GiB`."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    unit, suffix = pick_unit_and_suffix(int(count), units, 1024)
    return f"{count / unit:.{int(unit > 1)}f} {suffix}"


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Show how far `what` is of `total` steps (None: not known); yields `advance(steps)`.

    On a terminal the job, a bar, counts and the time left, in its last two lines; elsewhere a
    plain line every minute. Either way a line when it is done.
    """
    start = last_report = time.monotonic()
    with _Display(disable=not console.is_interactive) as display:
        stage = display.add_task(what, total=total)
        display.advance(stage, 0)  # speed is counted from here: answers come in batches

        def advance(steps: int) -> None:
            nonlocal last_report
            display.advance(stage, steps)
            if display.disable and time.monotonic() - last_report >= REPORT_SECONDS:
                last_report = time.monotonic()
                console.print(_line(display.tasks[stage]), soft_wrap=True)

        yield advance
    if (elapsed := time.monotonic() - start) >= WORTH_A_LINE:
        console.print(Text(f"{what}: {duration(elapsed, 1)}", style="dim"), soft_wrap=True)


class _Counts(ProgressColumn):
    """`412/900`, or `3.1/13.0 B`."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text()
        done, total = int(task.completed), int(task.total)
        if total < EXACT_COUNTS:
            return Text(f"{done}/{total}", style="progress.download")
        unit, suffix = pick_unit_and_suffix(total, ["", "k", "M", "B", "T"], 1000)
        return Text(f"{done / unit:.1f}/{total / unit:.1f} {suffix}", style="progress.download")


class _TimeLeft(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        return Text(_time_left(task), style="progress.remaining")


class _Display(Progress):
    """One stage, below a rule with the job's name; nothing if disabled."""

    def __init__(self, *, disable: bool) -> None:
        super().__init__(
            TextColumn("{task.description:<21}", markup=False),
            BarColumn(24, complete_style="cyan", finished_style="cyan"),
            _Counts(),
            _TimeLeft(),
            console=console,
            refresh_per_second=4,
            speed_estimate_period=SPEED_SECONDS,
            transient=True,
            disable=disable,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn at each refresh."""
        if _job:
            yield Rule(Text(_job), align="left", style="dim")
        yield self.make_tasks_table(self.tasks)


def _line(task: Task) -> Text:
    parts = [f"{task.percentage:.0f} %", _time_left(task)]
    return Text(f"{task.description}: {', '.join(filter(None, parts))}", style="dim")


def _time_left(task: Task) -> str:
    left = task.time_remaining
    return "" if left is None else f"{duration(left)} left"


def duration(seconds: float, digits: int = 0) -> str:
    """`8.5 s`, `12 min 5 s`, `2 h 5 min`; `digits` are those of seconds below a minute."""
    if round(seconds, digits) < 60:
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
