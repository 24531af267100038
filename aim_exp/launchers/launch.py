"""A sweep's jobs on an engine: what they share first, then they themselves; told as they end."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.text import Text

from aim_exp.cli.callbacks import Launch
from aim_exp.cli.plan_printer import PLANS
from aim_exp.config.build import build
from aim_exp.config.recorded import recorded, without_user_info
from aim_exp.config.sweep import Composer, constant_keys, job_folders, run_name
from aim_exp.console import REPORT_SECONDS, console, error_console, print_error
from aim_exp.errors import AimError
from aim_exp.launchers.engines import Engine, Ticket
from aim_exp.launchers.stages import fail, levels, shared_stage
from aim_exp.launchers.task import Sweep, Task, forget_printed, printed, where
from aim_exp.run.recording import initial_record
from aim_exp.run.run import Run
from aim_exp.store.run_record import FILE_NAME, INTERRUPTED, read_record

if TYPE_CHECKING:
    from hydra_plugins.aim_exp_launcher import SweepLauncher

PAUSE = 0.2
"""Seconds between looks at what has ended."""

Overrides = Sequence[str]


def launch(launcher: SweepLauncher, jobs: Sequence[Overrides], first: int) -> Sequence[JobReturn]:
    """Carry out a batch of jobs, numbered from `first`; what each returned."""
    config = launcher.config
    if config.plan:
        return _planned(config, jobs)
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    engine = launcher.engine()
    sweep = Sweep(
        context=launcher.hydra_context,
        config=config,
        state=Singleton.get_state(),
        directory=Path.cwd(),
    )
    tasks = [
        Task(
            sweep=sweep,
            function=launcher.task_function,
            overrides=tuple(overrides),
            folder=folder,
            number=number,
            name=" ".join(overrides),
        )
        for number, (overrides, folder) in enumerate(
            zip(jobs, job_folders(config, jobs, first), strict=True), first
        )
    ]
    shared = shared_tickets(sweep, jobs)
    tickets = [Ticket(task, after=shared[-1] if shared else ()) for task in tasks]
    _carry_out(engine, [*shared, tickets], wait=not launcher.detach)
    Launch.detached = launcher.detach
    return [ticket.returned or _nothing(ticket.task) for ticket in tickets]


def shared_tickets(sweep: Sweep, jobs: Sequence[Overrides]) -> list[list[Ticket]]:
    """What the jobs need in common and the store lacks: levels, each after the one before."""
    tickets: list[list[Ticket]] = []
    for level in levels(_runs(sweep.config, jobs)):
        after = tickets[-1] if tickets else []
        tickets.append(
            [
                Ticket(
                    Task(
                        sweep=sweep,
                        function=shared_stage,
                        overrides=each.overrides,
                        folder=each.folder,
                        name=each.what,
                    ),
                    after,
                )
                for each in level
            ]
        )
    return tickets


def _runs(config: DictConfig, jobs: Iterable[Overrides]) -> Iterator[tuple[Overrides, Run]]:
    """The jobs that can be built: what is wrong with others they tell in their turn."""
    composer, memo = Composer(config), {}
    for overrides in jobs:
        try:
            yield overrides, build(*composer.job(overrides), memo)
        except (AimError, OmegaConfBaseException):
            continue


def _carry_out(engine: Engine, levels: Sequence[Sequence[Ticket]], *, wait: bool) -> None:
    """Hand everything in, and tell what ends until all has; Ctrl-C ends what was handed in."""
    tickets = [ticket for level in levels for ticket in level]
    for ticket in tickets:
        forget_printed(ticket.task.directory)
    try:
        for level in levels:
            engine.submit(level)
        if wait:
            _watch(engine, tickets)
    except KeyboardInterrupt:
        engine.cancel([ticket for ticket in tickets if not ticket.ended])
        for ticket in tickets:
            _leave_word(ticket, INTERRUPTED)
        raise
    finally:
        if wait:
            engine.close()


def _watch(engine: Engine, tickets: Sequence[Ticket]) -> None:
    with _status() as show:
        while still := [ticket for ticket in tickets if not ticket.ended]:
            engine.poll(still)
            ended = [ticket for ticket in still if ticket.ended]
            for ticket in ended:
                _tell(ticket)
            show(_progress(tickets), bool(ended))
            if not ended:
                time.sleep(PAUSE)


def _tell(ticket: Ticket) -> None:
    """What the task printed, as if it had been here; and its failure, if it could not tell it."""
    output, errors = printed(ticket.task.directory)
    console.file.write(output)
    console.file.flush()
    error_console.file.write(errors)
    if ticket.lost and _leave_word(ticket, ticket.lost):
        print_error(error_console, ticket.lost, of=f"{ticket.task.name}: ")


def _leave_word(ticket: Ticket, words: str) -> bool:
    """The record of a job that was begun and could not write its end; a stage's failure.

    Whether there was need: a job that was killed behind its end is done.
    """
    task = ticket.task
    if ticket.returned:
        return False
    if task.number is None:
        if words != INTERRUPTED:
            fail(task.directory, words)
        return True
    if (task.directory / FILE_NAME).exists():
        record = read_record(task.directory)
    elif words == INTERRUPTED:  # before it was begun
        return False
    else:
        config, choices = Composer(task.sweep.config).job(task.overrides)
        command = without_user_info(shlex.join(["python", "run.py", *task.overrides]))
        overrides = tuple(map(without_user_info, task.overrides))
        record = initial_record(recorded(config), choices, overrides, command)
    if record.status == "running":
        task.directory.mkdir(parents=True, exist_ok=True)
        replace(record, status="failed", error=words).write(task.directory)
        return True
    return False


def _progress(tickets: Sequence[Ticket]) -> str:
    """`3 of 8 jobs done; running: 2 on gpu-07, 1 on gpu-08; 2 wait`: shared stages, too."""
    jobs = [ticket for ticket in tickets if ticket.task.number is not None]
    stages = [ticket for ticket in tickets if ticket.task.number is None]
    done = f"{sum(ticket.ended for ticket in jobs)} of {len(jobs)} jobs done"
    if not all(ticket.ended for ticket in stages):
        ended = sum(ticket.ended for ticket in stages)
        done = f"{ended} of {len(stages)} shared stages, {done}"
    words = [done]
    left = [t for t in tickets if not t.ended]
    places = [None if t.handle is None else where(t.task.directory) for t in left]
    running = Counter(place for place in places if place)
    if running:
        on = ", ".join(f"{count} on {place}" for place, count in running.items())
        words.append(f"running: {on}")
    if waiting := places.count(None):
        words.append(f"{waiting} wait")
    return "; ".join(words)


@contextmanager
def _status() -> Iterator[Callable[[str, bool], None]]:
    """Shows a line: on a terminal always the last one, elsewhere where it is news."""
    with console.status("") if console.is_interactive else nullcontext() as display:
        last, last_time = "", time.monotonic()

        def show(line: str, news: bool) -> None:
            nonlocal last, last_time
            if display:
                display.update(Text(line, style="dim"))
            elif line != last and (news or time.monotonic() - last_time > REPORT_SECONDS):
                console.print(Text(line, style="dim"), soft_wrap=True)
                last, last_time = line, time.monotonic()

        yield show


def _planned(config: DictConfig, jobs: Sequence[Overrides]) -> Sequence[JobReturn]:
    """Each job's plan, printed: nothing is carried out, so none needs Hydra round it."""
    composer, memo, alike = Composer(config), {}, constant_keys(jobs)
    for overrides in jobs:
        composed, choices = composer.job(overrides)
        PLANS.plan(run_name(composed, choices["method"], overrides, alike), composed, choices, memo)
    return []


def _nothing(task: Task) -> JobReturn:
    """Of a job that is lost, which its record tells, or goes on elsewhere."""
    nothing = JobReturn(overrides=[*task.overrides], status=JobStatus.COMPLETED)
    nothing.return_value = None
    return nothing
