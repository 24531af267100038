"""Slurm: each task a job of the cluster, by submitit; states by squeue and scontrol.

Many clusters have no accounting, which submitit asks for states: a job that left the queue without
a result, whatever ended it, would be waited for.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aim_exp.errors import AimError
from aim_exp.launchers.engines import Engine, Ticket, environment, library
from aim_exp.launchers.workers import gpus, worker_environments

FOLDER = ".submitit"
"""In a sweep's directory: scripts, pickles and logs of its jobs."""
LOOK = 5.0
"""Seconds between questions to the queue: its controller serves a whole cluster."""
GRACE = 20.0
"""Seconds for which a job may be out of the queue before its result is seen: shared disks."""
ENDING = 60.0
"""Seconds for cancelled jobs to leave the queue."""
CONTINUED = 1000
"""How often a job may go on after its time limit: it is ended by what it has to do."""
EVERYWHERE = ("timeout_min", "gpus_per_node", "cpus_per_task", "mem_gb")
"""submitit's names of settings that are not Slurm's alone."""


class _Submitit(Engine):
    """What both ways of submission have in common: a result is a file."""

    def __init__(self, cluster: str, sweep: Path, settings: dict[str, Any]) -> None:
        super().__init__(sweep)
        submitit = library("submitit", "slurm")
        self.executor = submitit.AutoExecutor(
            folder=sweep.absolute() / FOLDER / "%j",
            cluster=cluster,
            **{f"{cluster}_max_num_timeout": CONTINUED},
        )
        own = {name: value for name, value in settings.items() if value is not None}
        self.executor.update_parameters(
            name="aim-exp",
            **{n if n in EVERYWHERE else f"{cluster}_{n}": value for n, value in own.items()},
        )

    def look(self, tickets: Sequence[Ticket]) -> None:
        """Read what is there."""
        for ticket in tickets:
            if ticket.handle.paths.result_pickle.exists():
                try:
                    ticket.returned = ticket.handle.result()
                except Exception as error:  # whatever the task raised
                    ticket.lost = f"its process ended: {str(error).strip().splitlines()[-1]}"


class Slurm(_Submitit):
    """Jobs of a cluster. All are handed in at once; those of a level wait for the level before."""

    def __init__(self, sweep: Path, **settings: Any) -> None:
        more = {"requeue": True, **(settings.pop("additional_parameters") or {})}
        super().__init__("slurm", sweep, {**settings, "additional_parameters": more})
        self._last_look = 0.0
        self._gone: dict[str, float] = {}
        """By job, when it was first seen to be out of the queue."""

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """One array of jobs. `afterany`: tasks that need a failed one are told by its files."""
        before = {ticket.handle.job_id.partition("_")[0] for ticket in tickets[0].after}
        needs = ":".join(["afterany", *sorted(before)]) if before else None
        self.executor.update_parameters(slurm_dependency=needs)
        with _environment(environment()):
            jobs = self.executor.submit_array([ticket.task for ticket in tickets])
        for ticket, job in zip(tickets, jobs, strict=True):
            ticket.handle = job

    def start(self, ticket: Ticket) -> None:
        """`submit` did."""

    def look(self, tickets: Sequence[Ticket]) -> None:
        """Results, and jobs that are gone without one."""
        super().look(tickets)
        now = time.monotonic()
        if now - self._last_look < LOOK:
            return
        self._last_look = now
        if (queued := _queued()) is None:
            return
        for ticket in tickets:
            job = ticket.handle.job_id
            if ticket.ended or job in queued:
                self._gone.pop(job, None)
            elif now - self._gone.setdefault(job, now) > GRACE:
                ticket.lost = f"Slurm's job {job} ended without a result ({_state(job)})"

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """Ctrl-C for those that run, and all out of the queue."""
        jobs = [ticket.handle.job_id for ticket in tickets if ticket.handle is not None]
        if not jobs:
            return
        _run("scancel", "--signal=INT", *jobs)
        time.sleep(2)
        _run("scancel", *jobs)
        until = time.monotonic() + ENDING
        while time.monotonic() < until and {*jobs} & (_queued() or set()):
            time.sleep(1)


class SlurmLocal(_Submitit):
    """The same tasks, pickled and continued in the same way, as processes of this machine."""

    def __init__(
        self, sweep: Path, *, n_jobs: int | None, gpus_per_job: int, **settings: Any
    ) -> None:
        super().__init__("local", sweep, settings)
        self._idle = worker_environments(gpus(), n_jobs, gpus_per_job)
        self.slots = len(self._idle)
        self._taken: dict[str, dict[str, str]] = {}
        """By job, the environment that it has from `_idle`."""

    def start(self, ticket: Ticket) -> None:
        """A new process, on the GPUs of one that has ended."""
        own = self._idle.pop(0)
        devices = [int(each) for each in own.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        self.executor.update_parameters(
            gpus_per_node=len(devices), **({"local_visible_gpus": devices} if devices else {})
        )
        with _environment({**environment(), **own}):
            ticket.handle = self.executor.submit(ticket.task)
        self._taken[ticket.handle.job_id] = own

    def look(self, tickets: Sequence[Ticket]) -> None:
        """Results, and processes that are gone without one."""
        super().look(tickets)
        for ticket in tickets:
            state = ticket.handle.state
            if not ticket.ended and state != "RUNNING":
                super().look([ticket])  # it may have written it just now
                ticket.lost = None if ticket.returned else f"its process ended ({state.lower()})"
            if ticket.ended:
                self._idle.append(self._taken.pop(ticket.handle.job_id))

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """Ctrl-C for each."""
        started = [ticket.handle for ticket in tickets if ticket.handle is not None]
        for job in started:
            job.cancel()
        until = time.monotonic() + ENDING
        while time.monotonic() < until and any(job.state == "RUNNING" for job in started):
            time.sleep(0.1)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """What is submitted inherits these."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _queued() -> set[str] | None:
    """This user's jobs that wait or run, `12_3` those of an array; None where Slurm is silent."""
    done = _run("squeue", "-h", "-r", "-u", str(os.getuid()), "-o", "%i")
    return None if done.returncode else {*done.stdout.split()}


def _state(job: str) -> str:
    """How it ended, as far as Slurm still knows: `CANCELLED`, `OUT_OF_MEMORY`, `TIMEOUT`, ..."""
    match = re.search(r"JobState=(\S+)", _run("scontrol", "show", "job", job).stdout)
    return match[1] if match else "no longer known to Slurm"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise AimError(f"hydra/launcher=slurm: there is no {command[0]} on this machine") from error
