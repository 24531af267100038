"""Hydra callbacks: a sweep's report stays up to date while it runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig


class SweepReport(Callback):
    """Refresh the report as jobs end, at most every 30 s; the entry point does at the end."""

    directory: ClassVar[Path | None] = None
    """The sweep that this process started; its end belongs to the entry point."""
    config: ClassVar[DictConfig | None] = None
    """What all its jobs share; what is swept has its default."""
    jobs: ClassVar[int | None] = None
    """How many jobs it has; None where its sweeper finds that out as it goes."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember what the sweep is, and count the jobs."""
        SweepReport.directory = Path(config.hydra.sweep.dir)
        SweepReport.config = config
        if config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            SweepReport.jobs = _count_jobs(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Refresh; several workers may do so at once."""
        if config.hydra.mode == RunMode.MULTIRUN and not config.plan:
            from aim_exp.report import due, refresh

            directory = Path(config.hydra.sweep.dir)
            if due(directory):
                refresh(directory)


def _count_jobs(config: DictConfig) -> int:
    """All combinations of the swept values, those of an experiment's file among them."""
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*params, *config.hydra.overrides.task])
    by_key = {override.get_key_element(): override for override in overrides}  # the last one counts
    sweeps = [each for each in by_key.values() if each.is_discrete_sweep()]
    return math.prod(len(list(each.sweep_string_iterator())) for each in sweeps)
