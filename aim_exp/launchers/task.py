"""What another process is given: a job, or a shared stage, and all that it takes to begin it."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

OUTPUT, ERRORS = "output.log", "errors.log"
"""In a task's folder: what it would print, behind a line that says where it runs."""
WORKERS = "AIM_EXP_WORKERS"
"""The environment's name for how many of our processes share this one's processors."""
USUAL = gc.get_threshold()
GARBAGE = 100_000
"""New objects until garbage is looked for while all is imported: a million that stay."""
SMALL_MACHINE = 4
"""Processors up to which one thread is the default: more cost time where others work too."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What the tasks of a sweep have in common."""

    context: HydraContext
    config: DictConfig
    state: Mapping[Any, Any]
    """Of Hydra's singletons."""
    directory: Path
    """Where the command was given: paths are relative to it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Hydra's `run_job` in whatever process it is called; submitit may begin it again."""

    sweep: Sweep
    function: TaskFunction
    overrides: tuple[str, ...]
    folder: str
    """Below the sweep's directory."""
    number: int | None = None
    """Of a job; a shared stage has none."""
    name: str
    """For people."""

    @property
    def directory(self) -> Path:
        """Where it writes."""
        return Path(self.sweep.config.hydra.sweep.dir) / self.folder

    def __call__(self) -> JobReturn:
        """Carry it out. What it prints goes to files of its folder."""
        os.chdir(self.sweep.directory)
        setup_globals()
        Singleton.set_state(dict(self.sweep.state))
        loader = self.sweep.context.config_loader
        config = loader.load_sweep_config(self.sweep.config, [*self.overrides])
        with open_dict(config):
            config.hydra.job.id = self.folder
            if self.number is None:
                config.hydra.sweep.subdir = self.folder
                config.hydra.output_subdir = None  # its jobs' folders hold their configurations
            else:
                config.hydra.job.num = self.number
        HydraConfig.instance().set_config(config)
        with _printing_to(self.directory), _interruptible():
            return run_job(
                hydra_context=self.sweep.context,
                config=config,
                task_function=self.function,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )

    def checkpoint(self) -> Any:
        """What submitit puts into the queue when the time is up: the same, which goes on."""
        return import_module("submitit.helpers").DelayedSubmission(self)


def prepare_process(threads: int | None) -> None:
    """Threads, noise and garbage of the heavy libraries; they read the environment when imported.

    A log that cannot be written says nothing: what it is about says it by itself.
    """
    logging.raiseExceptions = False
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cpus // int(os.environ.get(WORKERS, "1"))
    n_threads = threads or (1 if share <= SMALL_MACHINE else share // 2)
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)
        gc.set_threshold(*USUAL)
    else:  # two seconds less for a process that imports all
        gc.set_threshold(GARBAGE)
        atexit.register(gc.freeze)  # the interpreter's own end would look through all that lives


def where(directory: Path) -> str | None:
    """The machine on which the task of that folder began; None where it has not."""
    try:
        with (directory / OUTPUT).open() as file:
            return file.readline().split()[1]
    except (OSError, IndexError):
        return None


def printed(directory: Path) -> tuple[str, str]:
    """What the task printed to its output and of errors."""
    texts = []
    for name in (OUTPUT, ERRORS):
        file = directory / name
        lines = file.read_text(errors="replace").splitlines(keepends=True) if file.exists() else []
        texts.append("".join(line for line in lines if not line.startswith("on ")))
    return texts[0], texts[1]


def forget_printed(directory: Path) -> None:
    """Of an earlier attempt."""
    for name in (OUTPUT, ERRORS):
        (directory / name).unlink(missing_ok=True)


@contextmanager
def _printing_to(directory: Path) -> Iterator[None]:
    """The process's output and errors, its children's too, go to two files."""
    directory.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(1), os.dup(2)]
    with (directory / OUTPUT).open("a") as output, (directory / ERRORS).open("a") as errors:
        output.write(f"on {socket.gethostname()} (process {os.getpid()})\n")
        output.flush()
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C reaches the task; a process between two tasks is left to its launcher."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
