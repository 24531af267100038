"""Experiment tracking: a run per job in Weights & Biases, or nowhere.

What is tracked is computed elsewhere (`aim_exp.report.tracked`); a tracker only logs it. It
never costs a result: whatever goes wrong in it is one line on the terminal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from aim_exp.console import console

if TYPE_CHECKING:
    import wandb

MODES = ("offline", "online", "disabled")
ONLINE_TIMEOUT = 30
"""Seconds to wait for a server at the start, before going on offline."""
FINISH_TIMEOUT = 120
"""Seconds to wait for the upload at the end; what is left can be synced later."""
WEIGHTS = ".safetensors"
"""Files of a saved model that stay where they are."""

Value = str | float | bool | None


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """A job, or a sweep's report, as a tracker knows it from the start."""

    id: str
    """Stable for a directory, so that a job that is run again continues its run."""
    name: str
    """For people: `ties omega=0.4`."""
    directory: Path
    """Its own; everything that is tracked locally goes there."""
    config: Mapping[str, Any]
    """Settings in plain containers, those that dashboards group and plot by at the top."""
    kind: Literal["merge", "report"] = "merge"
    group: str | None = None
    """The sweep's name."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of cells; a column holds numbers, truth values, or texts, and None where unknown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class SavedModel:
    """A merged model on disk, in the Hugging Face layout."""

    folder: Path
    recipe: Mapping[str, Any]
    """How to make it again, in plain containers."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out, ready to be logged; names say what belongs together: `score/math`."""

    succeeded: bool = True
    metrics: Mapping[str, float | bool] = field(default_factory=dict)
    """What runs are compared by."""
    details: Mapping[str, Value] = field(default_factory=dict)
    """Other single values: standard errors, seconds, the error of a failed job."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, Path] = field(default_factory=dict)
    """PNG files."""
    charts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Interactive figures: `data` and `layout`, as plotly reads them."""
    pages: Mapping[str, Path] = field(default_factory=dict)
    """HTML files that need no other."""
    model: SavedModel | None = None


class Tracker(Protocol):
    """Follows one run at a time, from `start` to `finish`. What it raises costs a line."""

    def problems(self) -> list[str]:
        """What is wrong with its settings, each `key=value: why; fix`."""
        ...

    def start(self, run: RunInfo) -> None:
        """A run begins; one with the `id` of an earlier run continues it."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """It is over, well or not. Called also where `start` failed."""
        ...


def start(tracker: Tracker, run: RunInfo) -> None:
    """`tracker.start`; an error in it is told, not raised."""
    with _told("not tracked"):
        tracker.start(run)


def finish(tracker: Tracker, outcome: Outcome) -> None:
    """`tracker.finish`; an error in it is told, not raised."""
    with _told("tracked incompletely"):
        tracker.finish(outcome)


@dataclass(frozen=True)
class NullTracker:
    """Tracks nothing."""

    def problems(self) -> list[str]:
        """None."""
        return []

    def start(self, run: RunInfo) -> None:
        """Do nothing."""

    def finish(self, outcome: Outcome) -> None:
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
        """Open the run; offline where online does not work."""
        if self.mode == "disabled":
            return
        _keep_files_in(run.directory)
        _remove_earlier(run)
        if self.mode == "online" and not WandbTracker._unreachable:
            self._run = self._open_online(run)
        if self._run is None:
            self._run = self._open(run, "offline")

    def finish(self, outcome: Outcome) -> None:
        """Log what came out, and close the run; it counts as failed if the job did."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            _log(run, outcome)
        finally:
            run.finish(exit_code=0 if outcome.succeeded else 1)

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
        _say(f"W&B: not online ({reason}); logging offline, `wandb sync` uploads it later")
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
            job_type=run.kind,
            tags=[*dict.fromkeys((*run.tags, *self.tags))],
            config=dict(run.config),
            dir=run.directory,
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=ONLINE_TIMEOUT,
                finish_timeout=FINISH_TIMEOUT,
            ),
        )


def _log(run: wandb.Run, outcome: Outcome) -> None:
    """The values first: media that cannot be read must not cost them.

    A value that is logged once is a bar per run in W&B's own panels, one that is logged twice a
    line: a run that goes on online has its earlier values in its summary, and logs what is new.
    """
    import wandb

    logged: Any = run.summary if run.resumed else {}
    row: dict[str, Any] = {n: v for n, v in outcome.metrics.items() if logged.get(n) != v}
    run.summary.update({**outcome.metrics, **outcome.details})
    for name, table in outcome.tables.items():
        row[f"tables/{name}"] = wandb.Table(columns=[*table.columns], data=[*map(list, table.rows)])
    for name, path in outcome.figures.items():
        row[f"figures/{name}"] = wandb.Image(str(path))
    for name, chart in outcome.charts.items():
        row[f"charts/{name}"] = _plotly(chart)
    for name, path in outcome.pages.items():
        row[f"pages/{name}"] = wandb.Html(str(path), inject=False)
    if row:
        run.log(row)
    if outcome.model:
        run.log_artifact(_artifact(run.id, outcome.model))


def _plotly(chart: Mapping[str, Any]) -> wandb.Plotly:
    import wandb
    from plotly.graph_objects import Figure

    return wandb.Plotly(Figure(dict(chart)))


def _artifact(run_id: str, model: SavedModel) -> wandb.Artifact:
    """The model without its weights, which stay where they are: gigabytes go nowhere unasked.

    They are references by path, so that nobody reads them for a checksum.
    """
    import wandb

    artifact = wandb.Artifact(f"model-{run_id}", type="model", metadata=dict(model.recipe))
    for path in sorted(model.folder.iterdir()):
        if path.suffix == WEIGHTS:
            artifact.add_reference(path.as_uri(), checksum=False)
        else:  # "immutable": W&B reads it there at upload, and makes no copy of its own
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
    return artifact


def _remove_earlier(run: RunInfo) -> None:
    """What an earlier attempt at the same run logged offline: synced too, it would come twice."""
    for folder in (run.directory / "wandb").glob(f"offline-run-*-{run.id}"):
        shutil.rmtree(folder)


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
def _told(consequence: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _say(f"tracker: {consequence} ({_first_line(error)})")


def _say(line: str) -> None:
    console.print(line, style="yellow", markup=False, soft_wrap=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
