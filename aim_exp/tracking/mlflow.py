"""A run per job in MLflow: a local SQLite file, which needs no account, or a server by its URI."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aim_exp.tracking.protocol import Outcome, RunInfo, SavedModel

if TYPE_CHECKING:
    from mlflow import MlflowClient

ID = "aim_exp.id"
"""The tag by which a job that is run again knows its earlier run."""
SQLITE = "sqlite:///"
SCHEMES = (SQLITE, "postgresql", "mysql", "mssql", "http://", "https://", "databricks")
NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
BATCH = 100
"""Parameters, and tags, that MLflow takes at once."""
LONGEST_VALUE = 5000
WEIGHTS = ".safetensors"
"""Files of a saved model that stay where they are."""


@dataclass(kw_only=True)
class MlflowTracker:
    """MLflow: parameters are the settings, a sweep is a value of the tag `sweep`."""

    experiment: str
    uri: str
    tags: tuple[str, ...]

    _client: Any = field(default=None, init=False, repr=False)
    _run: str | None = field(default=None, init=False, repr=False)

    def problems(self) -> list[str]:
        """A library that is missing, a URI of no known kind, an experiment without a name."""
        problems = []
        if find_spec("mlflow") is None:
            problems.append(
                "tracker=mlflow: mlflow is not installed; pip install 'aim-exp[mlflow]'"
            )
        if not self.uri.startswith(SCHEMES):
            problems.append(
                f"tracker.uri={self.uri}: no URI that MLflow writes to; use {SQLITE}FILE or "
                "http://HOST:PORT"
            )
        if not self.experiment.strip():
            problems.append("tracker.experiment: it has no name; set tracker.experiment=NAME")
        return problems

    def prepare(self) -> None:
        """Nothing: it is imported as fast later."""

    def start(self, run: RunInfo) -> None:
        """Open the run, in place of what an earlier attempt left."""
        self._client = client = _client(self.uri)
        experiment = self._experiment_id(client)
        for earlier in client.search_runs([experiment], f"tags.`{ID}` = '{run.id}'"):
            client.delete_run(earlier.info.run_id)
        labels = dict.fromkeys((*run.tags, *self.tags), "true")
        tags = {ID: run.id, "kind": run.kind, "directory": str(run.directory), **labels}
        if run.group:
            tags["sweep"] = run.group
        created = client.create_run(experiment, tags=tags, run_name=run.name)
        self._run = created.info.run_id
        _log_params(client, self._run, run.config)

    def finish(self, outcome: Outcome) -> None:
        """Log what came out, and close the run; it counts as failed if the job did."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            _log(self._client, run, outcome)
        finally:
            status = "FINISHED" if outcome.succeeded else "FAILED"
            self._client.set_terminated(run, status)

    def _experiment_id(self, client: MlflowClient) -> str:
        """Files of an experiment in a database lie beside it, those of a server's where it says."""
        from mlflow.exceptions import MlflowException

        location = None
        if self.uri.startswith(SQLITE):
            database = Path(self.uri.removeprefix(SQLITE)).resolve()
            location = database.with_suffix("").as_uri()
        known = client.get_experiment_by_name(self.experiment)
        if known is None:
            try:
                return client.create_experiment(self.experiment, location)
            except MlflowException:  # another job made it meanwhile
                known = client.get_experiment_by_name(self.experiment)
                if known is None:
                    raise
        return known.experiment_id


def _client(uri: str) -> MlflowClient:
    """Without its use being reported to its makers, and without its lines on the terminal."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if uri.startswith(SQLITE):
        Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(uri)


def _log_params(client: MlflowClient, run: str, config: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(name, str(value)[:LONGEST_VALUE]) for name, value in _flat(config)]
    for first in range(0, len(params), BATCH):
        client.log_batch(run, params=params[first : first + BATCH])


def _log(client: MlflowClient, run: str, outcome: Outcome) -> None:
    """The values first: files that cannot be read must not cost them."""
    for name, value in {**outcome.metrics, **outcome.details}.items():
        if isinstance(value, Real):
            client.log_metric(run, _name(name), float(value))
        elif value is not None:
            client.set_tag(run, _name(name), str(value)[:LONGEST_VALUE])
    for name, rows in outcome.tables.items():
        columns = {column: [row[column] for row in rows] for column in rows[0]}
        client.log_table(run, columns, f"tables/{name}.json")
    for folder, files in (("figures", outcome.figures), ("pages", outcome.pages)):
        for path in files.values():
            client.log_artifact(run, str(path), folder)
    if outcome.model:
        _log_model(client, run, outcome.model)


def _log_model(client: MlflowClient, run: str, model: SavedModel) -> None:
    """The model without its weights, which stay where the tag `model` says."""
    client.set_tag(run, "model", model.folder.resolve().as_uri())
    for path in sorted(model.folder.iterdir()):
        if path.suffix != WEIGHTS:
            client.log_artifact(run, str(path), "model")


def _flat(node: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """`(settings.method.density, 0.2)`, in order."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield _name(f"{before}{name}"), value


def _name(name: str) -> str:
    """As MLflow takes it."""
    return NOT_IN_NAMES.sub("_", name)
