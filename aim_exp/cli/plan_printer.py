"""What `plan=true` prints: the work and the needs of each job, and what all of them share."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape
from rich.table import Table

from aim_exp.cli.explain import explain
from aim_exp.config.build import Memo, checked
from aim_exp.console import console, error_console, print_error, print_whole

if TYPE_CHECKING:  # both are slower to import than an error is to tell
    from aim_exp.run.forecast import Work
    from aim_exp.run.run import Run


class PlanPrinter:
    """Prints the plans of a process's jobs; what one job has said, no other one says again."""

    def __init__(self) -> None:
        self._jobs: list[list[Work]] = []
        self._lines: set[str] = set()
        self.failed = False
        """Whether any job is refused."""

    def plan(
        self, name: str, config: DictConfig, choices: Mapping[str, str], memo: Memo | None = None
    ) -> None:
        """Check a job, and print its plan, or why it is refused; see `checked`."""
        try:
            self.show(name, checked(config, choices, memo))
        except Exception as error:
            if OmegaConf.select(config, "debug", throw_on_resolution_failure=False):
                traceback.print_exc()
            self.failed = True
            if news := self._new(explain(error).splitlines()):
                print_error(error_console, "\n".join(news))

    def show(self, name: str, run: Run) -> None:
        """Print what the run called `name` would do and what is cached, and what that takes."""
        from aim_exp.run.checks import unchecked
        from aim_exp.run.forecast import in_words, needs, work

        console.print(f"[bold]{escape(name)}[/]", soft_wrap=True)
        known = {item.key for job in self._jobs for item in job if item.key}
        self._jobs.append(work(run))
        for item in self._jobs[-1]:
            if item.key not in known:
                state = "to do " if item.to_do == item.parts else f"{item.to_do} to do"
                state = "cached" if not item.to_do else state
                console.print(f"  {state:<7} {item.what}  [dim]{item.key[:12]}[/]", soft_wrap=True)
        lines = in_words(needs(run))
        if models := unchecked(run):
            lines.append(
                f"unchecked names, shapes, vocabularies, chat templates and longest prompts of "
                f"{', '.join(models)}: not on disk yet"
            )
        for line in self._new(lines):
            console.print(f"  [dim]{line}[/]", soft_wrap=True)

    def sum_up(self) -> None:
        """Print the work of all jobs together, if there are several."""
        if len(self._jobs) < 2:
            return
        from aim_exp.run.forecast import shared

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(f"{len(self._jobs)} jobs together", style="bold")
        for heading in ("needed", "distinct", "cached", "to do"):
            table.add_column(heading, justify="right")
        for row in shared(self._jobs):
            counts = (row.needed, row.distinct, row.distinct - row.to_do, row.to_do)
            table.add_row(row.heading, *map(str, counts))
        console.print()
        print_whole(console, table)

    def _new(self, lines: list[str]) -> list[str]:
        new = [line for line in dict.fromkeys(lines) if line not in self._lines]
        self._lines.update(new)
        return new


PLANS = PlanPrinter()
"""Of this process."""
