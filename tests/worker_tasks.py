"""Tasks for other processes: a module that is quickly imported there."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path


def devices() -> tuple[int, str | None, str]:
    """The process, its GPUs, and how many workers there are."""
    time.sleep(0.5)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["AIM_EXP_WORKERS"]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def last(begun: Path) -> None:
    """Until Ctrl-C, which a worker without a task does not hear."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begun.touch()
    time.sleep(60)


def score(population: Path, name: str, folder: Path) -> tuple[int, list[int]]:
    """This process, and those with models that it has for a model of a population."""
    from test_evaluators import process, source, workers

    weights = replace(source(population / name), home=source(population / "base").home)
    with process().harness(weights, folder / str(os.getpid()), folder / f"{os.getpid()}.log"):
        return os.getpid(), workers()
