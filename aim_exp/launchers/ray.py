"""Ray: each task one of a cluster, or of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aim_exp.launchers.engines import Engine, Ticket, environment, library


@dataclass
class Ray(Engine):
    """A task per job; those of a node that is lost begin again on another, `max_retries` times.

    `address`: of a cluster (None: RAY_ADDRESS, or a cluster of this machine's own).
    """

    address: str | None
    num_gpus: float | None
    num_cpus: float
    max_retries: int
    """Of a task, when its node or process dies: what it has answered is kept."""

    def __post_init__(self) -> None:
        self._ray = library("ray", "ray")
        self._ray.init(
            address=self.address,
            runtime_env={"env_vars": environment()},
            log_to_driver=False,
            logging_level="error",
            ignore_reinit_error=True,
        )
        gpus = self._ray.cluster_resources().get("GPU", 0)
        self._options: dict[str, Any] = {
            "num_cpus": self.num_cpus,
            "num_gpus": min(1, gpus) if self.num_gpus is None else self.num_gpus,
            "max_retries": self.max_retries,
        }

    def start(self, ticket: Ticket) -> None:
        """Ray finds a node for it."""
        remote = self._ray.remote(_call).options(**self._options)
        ticket.handle = remote.remote(ticket.task)

    def look(self, tickets: Sequence[Ticket]) -> None:
        """Fetch what is there."""
        of = {ticket.handle: ticket for ticket in tickets}
        if not of:
            return
        done, _ = self._ray.wait([*of], num_returns=len(of), timeout=0)
        for handle in done:
            try:
                of[handle].returned = self._ray.get(handle)
            except self._ray.exceptions.RayError as error:
                of[handle].lost = f"its process ended: {str(error).strip().splitlines()[0]}"

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """End them as Ctrl-C does."""
        for ticket in tickets:
            if ticket.handle is not None:
                self._ray.cancel(ticket.handle)
        handles = [ticket.handle for ticket in tickets if ticket.handle is not None]
        if handles:
            self._ray.wait(handles, num_returns=len(handles), timeout=10)

    def close(self) -> None:
        """Leave the cluster; one that was begun here ends."""
        self._ray.shutdown()


def _call(task: Any) -> Any:
    return task()
