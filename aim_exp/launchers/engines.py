"""Engines: what starts tasks in other processes and tells how they ended."""

from __future__ import annotations

import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn

from aim_exp.errors import AimError
from aim_exp.launchers.task import Task

PASSED_ON = ("HF_", "WANDB_", "NLTK_", "HYDRA_", "OMP_", "AIM_EXP_")
"""How the variables begin that a process elsewhere needs of this one's environment."""


@dataclass(eq=False)
class Ticket:
    """A task that was handed to an engine."""

    task: Task
    after: Sequence[Ticket] = ()
    """Those that must have ended before it begins, however they did."""
    handle: Any = None
    """The engine's own; None before it is started."""
    returned: JobReturn | None = None
    lost: str | None = None
    """Why it ended without a return."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.returned is not None or self.lost is not None

    @property
    def ready(self) -> bool:
        """Whether it may begin."""
        return self.handle is None and all(ticket.ended for ticket in self.after)


@dataclass
class Engine(ABC):
    """Starts the tasks of the sweep in a directory as soon as they are ready, `slots` at once."""

    sweep: Path
    slots: int | None = field(default=None, init=False)
    """None: the engine has a queue of its own."""

    def submit(self, tickets: Sequence[Ticket]) -> None:  # noqa: B027 - `poll` starts them
        """Take over tickets, before they are ready: for engines with a queue."""

    def poll(self, tickets: Sequence[Ticket]) -> None:
        """Note what has ended among tickets that had not, and start what is ready."""
        started = [ticket for ticket in tickets if ticket.handle is not None]
        self.look(started)
        free = len(tickets) if self.slots is None else self.slots
        free -= sum(not ticket.ended for ticket in started)
        for ticket in [ticket for ticket in tickets if ticket.ready][: max(free, 0)]:
            self.start(ticket)

    @abstractmethod
    def start(self, ticket: Ticket) -> None:
        """Begin its task, and set its handle."""

    @abstractmethod
    def look(self, tickets: Sequence[Ticket]) -> None:
        """Note what has ended among started tickets."""

    @abstractmethod
    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """End the started ones that have not ended; return when they have."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Free what it holds."""


def library(name: str, extra: str) -> Any:
    """The module of an engine; AimError that names the extra where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AimError(
            f"hydra/launcher={extra}: {name} is not installed; pip install 'aim-exp[{extra}]'"
        ) from error


def environment() -> dict[str, str]:
    """What a process elsewhere must find in its environment to import and reach the same."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    return {**kept, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
