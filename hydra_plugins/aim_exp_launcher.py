"""Where Hydra looks for launchers. What they do lies in `aim_exp.launchers`, loaded when used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_class
from omegaconf import DictConfig

if TYPE_CHECKING:
    from aim_exp.launchers.engines import Engine


class OwnOptions(SearchPathPlugin):
    """Keeps what `hydra-joblib-launcher` and `hydra-ray-launcher` store out of our files' way."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called when every plug-in is loaded: Hydra would check our files against theirs."""
        stored = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
        for name in ("joblib.yaml", "ray.yaml"):
            stored.pop(name, None)


class SweepLauncher(Launcher):
    """Carries out a sweep's jobs in other processes, which an engine starts.

    `engine` is its class, by name; `settings` are its own. They are those of the option file; a
    plan needs none.
    """

    def __init__(self, engine: str = "", detach: bool = False, **settings: Any) -> None:
        self._engine, self._settings = engine, settings
        self.detach = detach

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra before `launch`."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """A batch of jobs, numbered from `initial_job_idx`."""
        from aim_exp.launchers.launch import launch

        return launch(self, job_overrides, initial_job_idx)

    def engine(self) -> Engine:
        """What starts processes. AimError where its library is missing."""
        return get_class(self._engine)(Path(self.config.hydra.sweep.dir), **self._settings)
