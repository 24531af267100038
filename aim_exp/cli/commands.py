"""Command lines: what repeats a run or a sweep, and what is worth trying next."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from aim_exp.cli.callbacks import SweepReport
from aim_exp.store.records import RunRecord

if TYPE_CHECKING:
    from aim_exp.run.run import Run

NEXT_COMMAND = "python run.py -m method=ties,dare_ties,task_arithmetic omega=null,0.4"

AIMS = ("omega=", "aim", "calibration")
"""How the overrides begin that change nothing in a plain merge."""


def run_command() -> str:
    """What repeats the job that is running, by itself."""
    return shlex.join(["python", "run.py", *HydraConfig.get().overrides.task])


def sweep_command() -> str:
    """What repeats all that this process was asked for."""
    return shlex.join(["python", "run.py", *sys.argv[1:]])


def after_run(run: Run) -> str | None:
    """A sweep worth trying next: of methods after the default run, else of omega."""
    own = [o for o in HydraConfig.get().overrides.task if not o.startswith(("omega=", "hydra."))]
    if not own:
        return NEXT_COMMAND
    if not run.recipe.suite.benchmarks or not run.recipe.method.merges:
        return None
    return shlex.join(["python", "run.py", "-m", *own, "omega=null,0.2,0.4,0.6"])


def after_sweep(directory: Path, records: Sequence[RunRecord]) -> str | None:
    """The plain merges, if there are none, else the tests against them; not after a failure."""
    if any(record.status == "failed" or not record.scores for record in records):
        return None
    if len(records) < (SweepReport.jobs or 0):  # it was interrupted between two jobs
        return None
    if all(record.omega is not None for record in records):
        asked = [a for a in sys.argv[1:] if not a.startswith(("hydra.sweep.dir=", *AIMS))]
        return shlex.join(["python", "run.py", *asked, *_swept_by_file(), "omega=null"])
    return shlex.join(["python", "-m", "aim_exp.report", os.path.relpath(directory)])


def _swept_by_file() -> list[str]:
    """The first value of what an experiment's file sweeps of AIM: to plain merges all are one."""
    config = SweepReport.config
    swept = (config.hydra.sweeper.params or {}) if config else {}
    texts = [f"{key}={values}" for key, values in swept.items() if f"{key}=".startswith(AIMS)]
    overrides = OverridesParser.create().parse_overrides(texts)
    return [
        f"{each.key_or_group}={next(iter(each.sweep_string_iterator()))}"
        for each in overrides
        if each.is_sweep_override() and each.key_or_group != "omega"
    ]
