"""Where Hydra looks for launchers. What they do lies in `aim_exp.launchers`, loaded when used."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, TaskFunction
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
    """Carries out a sweep's jobs in other processes; `settings` are those of its option file."""

    def __init__(self, detach: bool = False, **settings: Any) -> None:
        self.detach = detach
        self.settings = settings

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

    @abstractmethod
    def engine(self) -> Engine:
        """What starts processes. AimError where its library is missing."""


class JoblibLauncher(SweepLauncher):
    """`hydra/launcher=joblib`: several jobs at once on this machine."""

    def engine(self) -> Engine:
        """Processes that are kept from job to job."""
        from aim_exp.launchers.workers import Workers

        return Workers(**self.settings)


class SlurmLauncher(SweepLauncher):
    """`hydra/launcher=slurm`: each job one of a Slurm cluster."""

    def engine(self) -> Engine:
        """Through submitit."""
        from aim_exp.launchers.slurm import Slurm

        return Slurm(self.config.hydra.sweep.dir, **self.settings)


class SlurmLocalLauncher(SweepLauncher):
    """`hydra/launcher=slurm_local`: what `slurm` does, without a cluster."""

    def engine(self) -> Engine:
        """submitit's processes of this machine."""
        from aim_exp.launchers.slurm import SlurmLocal

        return SlurmLocal(self.config.hydra.sweep.dir, **self.settings)


class RayLauncher(SweepLauncher):
    """`hydra/launcher=ray`: each job a task of a Ray cluster."""

    def engine(self) -> Engine:
        """Ray's tasks."""
        from aim_exp.launchers.ray import Ray

        return Ray(**self.settings)
