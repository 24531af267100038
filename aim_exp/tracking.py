"""Experiment tracking: a run per job in Weights & Biases, or nowhere.

A tracker never costs a result: whatever goes wrong in it is one line on the terminal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from aim_exp.console import console
from aim_exp.records import RunRecord

if TYPE_CHECKING:
    import wandb

MODES = ("offline", "online", "disabled")
ONLINE_TIMEOUT = 30
"""Seconds to wait for a server at the start, before going on offline."""
FINISH_TIMEOUT = 120
"""Seconds to wait for the upload at the end; what is left can be synced later."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """A job as a tracker knows it from the start."""

    id: str
    """Stable for a job's directory, so that a job that is run again continues its run."""
    name: str
    """For people: `ties omega=0.4`."""
    directory: Path
    """The job's own; everything that is tracked locally goes there."""
    config: Mapping[str, Any]
    """The whole configuration in plain containers."""
    group: str | None = None
    """The sweep's name."""
    tags: tuple[str, ...] = ()


class Tracker(Protocol):
    """Follows one job at a time, from `start` to `finish`; neither ever raises."""

    def problems(self) -> list[str]:
        """What is wrong with its settings, each `key=value: why; fix`."""
        ...

    def start(self, run: RunInfo) -> None:
        """A job begins."""
        ...

    def finish(self, record: RunRecord, figure: Path | None = None) -> None:
        """It is over, well or not (`record.status`)."""
        ...


@dataclass(frozen=True)
class NullTracker:
    """Tracks nothing."""

    def problems(self) -> list[str]:
        """None."""
        return []

    def start(self, run: RunInfo) -> None:
        """Do nothing."""

    def finish(self, record: RunRecord, figure: Path | None = None) -> None:
        """Do nothing."""


@dataclass(kw_only=True)
class WandbTracker:
    """Weights & Biases: offline unless asked, never a prompt, silent on the terminal."""

    project: str
    entity: str | None
    mode: str
    tags: tuple[str, ...]

    _run: Any = field(default=None, init=False, repr=False)
    _unreachable: ClassVar[bool] = False
    """Going online failed once in this process: later jobs do not wait for it again."""

    def problems(self) -> list[str]:
        """A mode that does not exist."""
        if self.mode in MODES:
            return []
        return [f"tracker.mode={self.mode}: no such mode; use offline, online or disabled"]

    def start(self, run: RunInfo) -> None:
        """Open the job's run; offline where online does not work."""
        if self.mode == "disabled":
            return
        _keep_files_in(run.directory)
        with _never_raising("not tracked"):
            if self.mode == "online" and not WandbTracker._unreachable:
                self._run = self._open_online(run)
            if self._run is None:
                self._run = self._open(run, "offline")

    def finish(self, record: RunRecord, figure: Path | None = None) -> None:
        """Log what came out, and close the run; it counts as failed if the job did."""
        run, self._run = self._run, None
        if run is None:
            return
        with _never_raising("the run is incomplete"):
            try:
                _log(run, record, figure)
            finally:
                run.finish(exit_code=0 if record.status == "completed" else 1)

    def _open_online(self, run: RunInfo) -> wandb.Run | None:
        """The run on the server, or None, said once, if there is no key or no connection."""
        import wandb

        try:
            if wandb.login(prompt=False, verify=False):
                return self._open(run, "online")
            reason = "no API key; set WANDB_API_KEY or run `wandb login`"
        except Exception as error:  # it raises many kinds, and none of them matters here
            reason = _first_line(error)
        WandbTracker._unreachable = True
        wandb.teardown()  # or the run's id stays taken
        console.print(
            f"W&B: not online ({reason}); logging offline, `wandb sync` uploads it later",
            style="yellow", markup=False, soft_wrap=True,
        )  # fmt: skip
        return None

    def _open(self, run: RunInfo, mode: Literal["online", "offline"]) -> wandb.Run:
        import wandb

        return wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,
            id=run.id,
            resume="allow" if mode == "online" else None,
            reinit="finish_previous",
            name=run.name,
            group=run.group,
            job_type="merge",
            tags=[*run.tags, *self.tags],
            config=dict(run.config),
            dir=run.directory,
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=ONLINE_TIMEOUT,
                finish_timeout=FINISH_TIMEOUT,
            ),
        )


def summary(record: RunRecord) -> dict[str, Any]:
    """The single numbers of a record under the names that a dashboard sorts and plots by."""
    values: dict[str, Any] = {
        "status": record.status,
        "error": record.error,
        "average": record.average,
        "normalised_average": record.normalised_average,
        "gain_over_best_member": record.gain_over_best_member,
        "hypervolume": record.hypervolume,
        "hypervolume_gain": record.hypervolume_gain,
        "hypervolume_gain_population": record.hypervolume_gain_population,
        "on_front": None if record.on_front is None else "merged" in record.on_front,
    }
    values |= {f"score/{name}": value for name, value in (record.scores or {}).items()}
    values |= {f"stderr/{name}": value for name, value in (record.stderr or {}).items()}
    values |= {f"timings/{name}": value for name, value in record.timings.items()}
    return {name: value for name, value in values.items() if value is not None}


def results_table(record: RunRecord) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows, model by benchmark: base, experts, references, the merged model."""
    scored = {**(record.population_scores or {}), **(record.reference_scores or {})}
    if record.scores:
        scored["merged"] = record.scores
    names = list(dict.fromkeys(name for scores in scored.values() for name in scores))
    rows = [[model, *(scores.get(name) for name in names)] for model, scores in scored.items()]
    return ["model", *names], rows


def _log(run: wandb.Run, record: RunRecord, figure: Path | None) -> None:
    import wandb

    run.summary.update(summary(record))
    columns, rows = results_table(record)
    media: dict[str, Any] = {}
    if rows:
        media["results"] = wandb.Table(columns=[*columns], data=[*rows])
    if figure is not None:
        media["pareto_front"] = wandb.Image(str(figure))
    if media:
        run.log(media)


def _keep_files_in(directory: Path) -> None:
    """W&B reads these whenever it likes; so nothing of it lands in the user's home."""
    folder = directory.resolve()
    os.environ |= {
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(folder),
        "WANDB_DATA_DIR": str(folder / "wandb"),
        "WANDB_CACHE_DIR": str(folder / "wandb" / "cache"),
    }


@contextmanager
def _never_raising(consequence: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        console.print(
            f"W&B: {consequence} ({_first_line(error)})",
            style="yellow", markup=False, soft_wrap=True,
        )  # fmt: skip


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
