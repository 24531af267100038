"""Hydra callbacks: a sweep's report stays up to date while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig


class SweepReport(Callback):
    """Refresh the report as jobs end, at most every 30 s; the entry point does at the end."""

    directory: ClassVar[Path | None] = None
    """The sweep that this process started; its end belongs to the entry point."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the directory."""
        SweepReport.directory = Path(config.hydra.sweep.dir)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Refresh; several workers may do so at once."""
        if config.hydra.mode == RunMode.MULTIRUN and not config.plan:
            from aim_exp.report import due, refresh

            directory = Path(config.hydra.sweep.dir)
            if due(directory):
                refresh(directory)
