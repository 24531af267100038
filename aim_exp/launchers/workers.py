"""Processes of this machine, one per GPU or as many as asked for, kept from task to task."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aim_exp.errors import AimError
from aim_exp.launchers.engines import Engine, Ticket, environment, library
from aim_exp.launchers.task import SMALL_MACHINE, WORKERS

GRACE = 30.0
"""Seconds for a task that is interrupted to say so in its record."""
PAUSE = 1.0
"""Seconds between a worker's looks at whether the command is still there."""


@dataclass
class Workers(Engine):
    """`n_jobs` workers (None: one per `gpus_per_job` GPUs; without any, as many as cores allow).

    A worker whose process dies takes its task with it, no other one's: the next gets a new one.
    """

    n_jobs: int | None
    gpus_per_job: int
    _idle: list[dict[str, str]] = field(default_factory=list, init=False)
    """Environments of workers without a task."""
    _executors: dict[str, Any] = field(default_factory=dict, init=False)
    """By number of the worker."""

    def __post_init__(self) -> None:
        self._loky = library("joblib.externals.loky", "joblib")
        environments = worker_environments(gpus(), self.n_jobs, self.gpus_per_job)
        self._idle = [{**each, "AIM_EXP_WORKER": str(n)} for n, each in enumerate(environments)]
        self.slots = len(self._idle)

    def start(self, ticket: Ticket) -> None:
        """Hand it to an idle worker."""
        worker = self._idle.pop(0)
        try:
            future = self._executor(worker).submit(ticket.task)
        except self._loky.BrokenProcessPool:  # it was killed while it had no task
            del self._executors[worker["AIM_EXP_WORKER"]]
            future = self._executor(worker).submit(ticket.task)
        ticket.handle = worker, future

    def _executor(self, worker: Mapping[str, str]) -> Any:
        """The worker's process, if it has one already."""
        number = worker["AIM_EXP_WORKER"]
        if number not in self._executors:
            self._executors[number] = self._loky.ProcessPoolExecutor(
                max_workers=1,
                timeout=None,
                env={**environment(), **worker},
                initializer=_begin,
                initargs=(os.getpid(),),
            )
        return self._executors[number]

    def look(self, tickets: Sequence[Ticket]) -> None:
        """Take back the workers whose task has ended."""
        for ticket in tickets:
            worker, future = ticket.handle
            if not future.done():
                continue
            self._idle.append(worker)
            error = future.exception()
            if error is None:
                ticket.returned = future.result()
                continue
            ticket.lost = f"its process ended: {str(error).splitlines()[0]}"
            self._executors.pop(worker["AIM_EXP_WORKER"]).shutdown(wait=False, kill_workers=True)

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """Ctrl-C for every worker; those that go on after a while are killed."""
        for executor in self._executors.values():
            for pid in [*executor._processes]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
        until = time.monotonic() + GRACE
        futures = [ticket.handle[1] for ticket in tickets if ticket.handle]
        while time.monotonic() < until and not all(future.done() for future in futures):
            time.sleep(0.05)
        killed = not all(future.done() for future in futures)
        for executor in self._executors.values():
            executor.shutdown(kill_workers=killed)
        self._executors.clear()

    def close(self) -> None:
        """End the workers."""
        for executor in self._executors.values():
            executor.shutdown()
        self._executors.clear()


def _begin(command: int) -> None:
    """In a worker: Ctrl-C is the command's to pass on, and whoever kills that kills it too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == command:
            time.sleep(PAUSE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES calls them."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in chosen.split(",") if each]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.split()


def worker_environments(
    devices: Sequence[str], n_jobs: int | None, gpus_per_job: int
) -> list[dict[str, str]]:
    """What each worker finds in its environment: its own GPUs, and how many workers there are."""
    size = max(gpus_per_job, 0)
    if size > len(devices) > 0:
        raise AimError(f"hydra.launcher.gpus_per_job={size}: this machine has {len(devices)} GPUs")
    groups = (
        [devices[i : i + size] for i in range(0, len(devices) - size + 1, size)] if size else []
    )
    cpus = os.cpu_count() or 1
    count = n_jobs or len(groups) or (cpus if cpus <= SMALL_MACHINE else 2)
    shared = {WORKERS: str(count)}
    if not groups:
        return [shared] * count
    chosen = [groups[number % len(groups)] for number in range(count)]
    return [{**shared, "CUDA_VISIBLE_DEVICES": ",".join(group)} for group in chosen]
