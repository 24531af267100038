"""Hydra callbacks: a sweep is listed and checked before it starts, its report kept up to date."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aim_exp.cli.commands import sweep_command
from aim_exp.config.recorded import without_user_info
from aim_exp.config.sweep import constant_keys, job_folders, sweep_jobs, sweep_problems
from aim_exp.console import error_console, print_error, print_warning
from aim_exp.store.processes import note_work
from aim_exp.store.run_record import FILE_NAME
from aim_exp.store.sweeps import Sweep, SweepJob, begin_anew, read_sweep

REPORTING = 0.05
"""Of a sweep's time, what its report may take while it runs."""


class Launch(Callback):
    """What this process was asked for; its end belongs to the entry point.

    Workers of a launcher have callbacks of their own, which refresh the report as jobs end.
    """

    directory: ClassVar[Path | None] = None
    """Of the run, or of the sweep."""
    sweep: ClassVar[Path | None] = None
    """Of the sweep, where it is one, and no plan."""
    config: ClassVar[DictConfig | None] = None
    """What all jobs of the sweep share; what is swept has its default."""
    detached: ClassVar[bool] = False
    """Whether its jobs go on after this process."""
    pause: ClassVar[float] = 30.0
    """Seconds between two refreshes of the report, more where one takes long."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember where the run goes."""
        Launch.directory = Path(config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """List the jobs, tell which of them will fail, and refuse the folder of another sweep."""
        jobs = sweep_jobs(config)
        if jobs is not None:
            if not jobs:
                print_error(error_console, "the sweep has no job: glob(...) matches no option")
                sys.exit(1)
            # The jobs take these over, in whatever process they run: their names leave them out.
            names = "hydra.job.config.override_dirname.exclude_keys"
            config.hydra.overrides.hydra.append(f"{names}={constant_keys(jobs)}")
        if config.plan:
            return
        directory = Path(config.hydra.sweep.dir)
        with suppress(OmegaConfBaseException, TypeError):  # its jobs tell what is wrong with it
            note_work(Path(config.cache_dir), directory)
        _list_jobs(directory, config, jobs or [])
        Launch.sweep, Launch.directory, Launch.config = directory, directory, config
        problems = sweep_problems(config, jobs) if jobs else []
        for problem in problems:
            print_warning(error_console, problem)
        if problems:
            print_warning(error_console, "those jobs fail in their turn; the others run")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Refresh the report now and then; several workers may do so at once.

        Launchers keep what jobs return until the last one: without its configuration, which takes
        half a MiB.
        """
        if config.hydra.mode == RunMode.MULTIRUN:
            job_return.cfg = job_return.hydra_cfg = None
        is_job = config.hydra.mode == RunMode.MULTIRUN and not OmegaConf.is_missing(
            config.hydra.job, "num"
        )  # a shared stage has no number
        if is_job and not config.plan:
            from aim_exp.report import due, refresh

            directory = Path(config.hydra.sweep.dir)
            if due(directory, Launch.pause):
                began = time.monotonic()
                refresh(directory, running=True)
                Launch.pause = max(Launch.pause, (time.monotonic() - began) / REPORTING)


def _list_jobs(directory: Path, config: DictConfig, jobs: list[Any]) -> None:
    """Write `sweep.json`; exit 1, in a line, where another sweep lies there."""
    folders = job_folders(config, jobs)
    listed = tuple(
        SweepJob(folder, tuple(map(without_user_info, job)))
        for folder, job in zip(folders, jobs, strict=True)
    )
    earlier = read_sweep(directory)
    if (earlier and earlier.jobs != listed) or (not earlier and any(directory.rglob(FILE_NAME))):
        print_error(
            error_console,
            f"hydra.sweep.dir={directory}: holds the runs of another sweep; name another folder, "
            "or give that sweep's own command to go on with it",
        )
        sys.exit(1)
    begin_anew(directory)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    Sweep(now, without_user_info(sweep_command()), listed).write(directory)
