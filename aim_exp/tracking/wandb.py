"""A run per job in Weights & Biases: offline unless asked, never a prompt."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aim_exp.errors import first_line
from aim_exp.store.files import RUN_KEYS, check_free
from aim_exp.tracking.protocol import Outcome, RunInfo, SavedModel, say

if TYPE_CHECKING:
    import wandb

MODES = ("offline", "online", "disabled")
LONGEST_PROJECT, LONGEST_TAG = 128, 64
NOT_IN_PROJECT = r"/\#?%:"
ROOM = 16 * 2**20
"""Bytes that its files may take."""
ONLINE_TIMEOUT = 30
"""Seconds to wait for a server at the start, before going on offline."""
FINISH_TIMEOUT = 120
"""Seconds to wait for the upload at the end; what is left can be synced later."""
WEIGHTS = ".safetensors"
"""Files of a saved model that stay where they are."""


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
        """A mode that does not exist; a project or a tag that W&B does not take."""
        problems = []
        if self.mode not in MODES:
            problems.append(
                f"tracker.mode={self.mode}: no such mode; use offline, online or disabled"
            )
        project = self.project
        if not 0 < len(project) <= LONGEST_PROJECT or set(project) & set(NOT_IN_PROJECT):
            problems.append(
                f"tracker.project={project}: W&B takes 1 to {LONGEST_PROJECT} characters, and none "
                f"of {NOT_IN_PROJECT}"
            )
        return problems + [
            f"tracker.tags: W&B takes tags of 1 to {LONGEST_TAG} characters; shorten {tag}"
            for tag in self.tags
            if not 0 < len(tag) <= LONGEST_TAG
        ]

    def prepare(self) -> None:
        """Import it: each of its classes goes through all modules that there are by then."""
        if self.mode != "disabled":
            import wandb.sdk.launch  # noqa: F401 (which `wandb.init` imports)

    def start(self, run: RunInfo) -> None:
        """Open the run; offline where online does not work."""
        if self.mode == "disabled":
            return
        check_free("W&B's files", ROOM, run.directory, RUN_KEYS)  # it says nothing if they are cut
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
            reason = first_line(error)
        WandbTracker._unreachable = True
        wandb.teardown()  # or the run's id stays taken
        say(f"W&B: not online ({reason}); logging offline, `wandb sync` uploads it later")
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
            tags=[*dict.fromkeys(tag[:LONGEST_TAG] for tag in (*run.tags, *self.tags))],
            config=dict(run.config),
            dir=run.directory,
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_save_requirements=False,  # the record holds what decides numbers
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
    # For a None it imports pandas; what a run that goes on has had may have to become one.
    values = {**outcome.metrics, **outcome.details}
    run.summary.update({n: v for n, v in values.items() if v is not None or logged.get(n)})
    for name, rows in outcome.tables.items():
        data: list[Any] = [list(each.values()) for each in rows]
        row[f"tables/{name}"] = wandb.Table(columns=[*rows[0]], data=data)
    for name, path in outcome.figures.items():
        row[f"figures/{name}"] = wandb.Image(str(path))
    for name, path in outcome.pages.items():
        row[f"pages/{name}"] = wandb.Html(str(path), inject=False)
    if row:
        run.log(row)
    if outcome.model:
        run.log_artifact(_artifact(run.id, outcome.model))


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
    """W&B reads these whenever it likes; so nothing of it lands in the user's home.

    Nor does it report errors and use to its makers, as it would offline too.
    """
    folder = directory.resolve()
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ |= {
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(folder),
        "WANDB_DATA_DIR": str(folder / "wandb"),
        "WANDB_CACHE_DIR": str(folder / "wandb" / "cache"),
    }
