"""Hydra callbacks: a sweep is checked before it starts, its report up to date while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from aim_exp.console import error_console, print_warning


class SweepReport(Callback):
    """Refresh the report as jobs end, at most every 30 s; the entry point does at the end."""

    directory: ClassVar[Path | None] = None
    """The sweep that this process started; its end belongs to the entry point."""
    config: ClassVar[DictConfig | None] = None
    """What all its jobs share; what is swept has its default."""
    jobs: ClassVar[int | None] = None
    """How many jobs it has; None where its sweeper finds that out as it goes."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember what the sweep is, and tell which of its jobs will fail."""
        from aim_exp.config.sweep import constant_keys, sweep_jobs, sweep_problems

        SweepReport.directory = Path(config.hydra.sweep.dir)
        SweepReport.config = config
        jobs = sweep_jobs(config)
        if jobs is None:
            return
        SweepReport.jobs = len(jobs)
        if not jobs:
            print_warning(error_console, "the sweep has no job: glob(...) matches no option")
            return
        # The jobs take these over, in whatever process they run: their names leave the keys out.
        names = "hydra.job.config.override_dirname.exclude_keys"
        config.hydra.overrides.hydra.append(f"{names}={constant_keys(jobs)}")
        problems = [] if config.plan else sweep_problems(config, jobs)  # a plan tells them itself
        for problem in problems:
            print_warning(error_console, problem)
        if problems:
            print_warning(error_console, "those jobs fail in their turn; the others run")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Refresh; several workers may do so at once."""
        if config.hydra.mode == RunMode.MULTIRUN and not config.plan:
            from aim_exp.report import due, refresh

            directory = Path(config.hydra.sweep.dir)
            if due(directory):
                refresh(directory)
