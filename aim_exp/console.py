"""The terminal: one console, one way to show progress, plain lines where it is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)

Advance = Callable[[int], None]


def print_whole(to: Console, table: Table) -> None:
    """Print a table at the width that it needs, however narrow the terminal: nothing is cut."""
    unlimited = to.options.update_width(10_000)
    table.width = Measurement.get(to, unlimited, table).maximum
    to.print(table, crop=False)


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Show how far `what` is of `total` steps; yields `advance(steps)`.

    A bar with the time left on a terminal; elsewhere one plain line when it is done.
    """
    start = time.monotonic()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda steps: bar.advance(task, steps)
    else:
        yield lambda steps: None
    console.print(f"{what}: {time.monotonic() - start:.1f} s", style="dim", soft_wrap=True)
