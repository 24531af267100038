"""Command lines: what repeats a run or a sweep, and what is worth trying next."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

if TYPE_CHECKING:
    from aim_exp.report.load import Runs
    from aim_exp.run.run import Run

NEXT_COMMAND = "python run.py -m method=ties,dare_ties,task_arithmetic omega=null,0.4"

AIMS = ("omega=", "aim", "calibration")
"""How the overrides begin that change nothing in a plain merge."""


def task_overrides() -> list[str]:
    """Those of the job that is running, as they were written: the environment is not looked up."""
    return cast("list[str]", OmegaConf.to_container(HydraConfig.get().overrides.task))


def run_command() -> str:
    """What repeats the job that is running, by itself."""
    return shlex.join(["python", "run.py", *task_overrides()])


def sweep_command() -> str:
    """What repeats all that this process was asked for."""
    return shlex.join(["python", "run.py", *sys.argv[1:]])


def after_run(run: Run) -> str | None:
    """A sweep worth trying next: of methods after the default run, else of omega."""
    own = [o for o in task_overrides() if not o.startswith(("omega=", "hydra."))]
    if not own:
        return NEXT_COMMAND
    if not run.recipe.suite.benchmarks or not run.recipe.method.merges:
        return None
    return shlex.join(["python", "run.py", "-m", *own, "omega=null,0.2,0.4,0.6"])


def after_sweep(directory: Path, runs: Runs) -> str | None:
    """The plain merges, if there are none, else the tests against them; not after a failure."""
    records = [job.record for job in runs.jobs]
    if any(r is None or r.status != "completed" or not r.models[-1].scores for r in records):
        return None
    if all(record and record.relaxation is not None for record in records):
        plain = [a for a in sys.argv[1:] if not a.startswith(("hydra.sweep.dir=", *AIMS))]
        swept = _first_values(runs)
        return shlex.join(["python", "run.py", *plain, *swept, "omega=null"])
    return shlex.join(["python", "-m", "aim_exp.report", os.path.relpath(directory)])


def after_detaching(directory: Path) -> str:
    """What shows how far the jobs of a sweep are."""
    shows = shlex.join(["python", "-m", "aim_exp.report", os.path.relpath(directory)])
    return f"handed in; to see how far they are: {shows}"


def _first_values(runs: Runs) -> list[str]:
    """Of an experiment that sweeps settings of AIM: the first of each; all are one when plain."""
    if not any(argument.startswith("experiment=") for argument in sys.argv[1:]):
        return []
    first = runs.jobs[0].overrides
    return [o for o in first if o.startswith(AIMS) and not o.startswith("omega=")]
