"""MLflow: what is logged in a local database is read back through its own client."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Cli
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from test_tracking import OUTCOME, info

from aim_exp.tracking import protocol as tracking
from aim_exp.tracking.mlflow import MlflowTracker
from aim_exp.tracking.protocol import SavedModel


def tracker(folder: Path, **changes: str | tuple[str, ...]) -> MlflowTracker:
    settings = {"experiment": "merging", "uri": f"sqlite:///{folder}/mlflow.db", "tags": ("mine",)}
    return MlflowTracker(**{**settings, **changes})


def runs(folder: Path, experiment="merging") -> list[Run]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (known,) = [e for e in client.search_experiments() if e.name == experiment]
    return list(client.search_runs([known.experiment_id], order_by=["start_time"]))


def files(run: Run) -> dict[str, Path]:
    folder = Path((run.info.artifact_uri or "").removeprefix("file://"))
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def test_a_run_reads_back_as_it_was_logged(tmp_path: Path, capfd) -> None:
    figure, page, model = tmp_path / "front.png", tmp_path / "report.html", tmp_path / "model"
    Image.new("RGB", (8, 8), "white").save(figure)
    page.write_text("<html></html>")
    model.mkdir()
    (model / "README.md").write_text("a card")
    (model / "model.safetensors").write_bytes(bytes(1000))
    outcome = replace(
        OUTCOME,
        details={**OUTCOME.details, "error": "it\nbroke"},
        figures={"front": figure},
        pages={"report": page},
        model=SavedModel(model, {}),
        succeeded=False,
    )
    tracking.start(each := tracker(tmp_path), info(tmp_path / "job"))
    tracking.finish(each, outcome, tmp_path)
    assert "".join(capfd.readouterr()) == ""

    (run,) = runs(tmp_path)
    assert (run.info.run_name, run.info.status) == ("ties omega=0.4", "FAILED")
    assert run.data.params == {
        "omega": "0.4", "settings.method.density": "0.2", "settings.method.rescale": "None",
        "exclude": "['a']",
    }  # fmt: skip
    assert run.data.metrics == {**OUTCOME.metrics, "stderr/math": 0.03, "timings/merge": 1.5}
    tags = {"sweep": "my sweep", "kind": "merge", "error": "it\nbroke", "ties": "true",
            "mine": "true", "status": "completed", "model": model.as_uri()}  # fmt: skip
    assert {name: run.data.tags[name] for name in tags} == tags
    written = files(run)
    assert set(written) == {
        "figures/front.png", "model/README.md", "pages/report.html", "tables/scores.json",
    }  # fmt: skip
    assert written["figures/front.png"].read_bytes() == figure.read_bytes()
    table = json.loads(written["tables/scores.json"].read_text())
    assert table == {"columns": ["benchmark", "score"], "data": [["math", 0.25], ["mmlu", None]]}


def test_a_job_that_is_run_again_is_there_once(tmp_path: Path) -> None:
    for omega in (0.2, 0.4):  # a parameter cannot be set again in the same run
        described = replace(info(tmp_path / "job"), config={"omega": omega})
        tracking.start(each := tracker(tmp_path), described)
        tracking.finish(each, OUTCOME, tmp_path)
    (run,) = runs(tmp_path)
    assert run.data.params == {"omega": "0.4"}


def test_names_and_values_that_mlflow_does_not_take(tmp_path: Path) -> None:
    config = {f"k{i}": i for i in range(130)} | {"long": "x" * 9000, "a=b": {}}
    tracking.start(each := tracker(tmp_path), replace(info(tmp_path / "job"), config=config))
    tracking.finish(each, replace(OUTCOME, metrics={"score/a[b]": 0.5}), tmp_path)
    (run,) = runs(tmp_path)
    assert len(run.data.params) == 132
    assert run.data.params["a_b"] == "{}"
    assert run.data.metrics["score/a_b_"] == 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uri": "outputs/mlflow.db"}, "tracker.uri=outputs/mlflow.db: no URI that MLflow writes"),
        ({"experiment": " "}, "tracker.experiment: it has no name"),
    ],
)
def test_what_mlflow_would_refuse(changes: dict[str, str], words: str, tmp_path: Path) -> None:
    (problem,) = tracker(tmp_path, **changes).problems()
    assert problem.startswith(words)


def test_a_server_that_does_not_answer_costs_a_line(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    each = tracker(tmp_path, uri="http://127.0.0.1:9")
    tracking.start(each, info(tmp_path / "job"))
    tracking.finish(each, OUTCOME, tmp_path)
    assert "tracker: not tracked" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_and_its_report_are_runs_of_one_group(cli: Cli, tmp_path: Path) -> None:
    uri = f"tracker.uri=sqlite:///{tmp_path}/mlflow.db"
    sweep = ("-m", "omega=null,0.4", "benchmarks.limit=4", f"hydra.sweep.dir={tmp_path}/sweep")
    done = cli(*sweep, "tracker=mlflow", uri)
    assert done.returncode == 0, done.stdout + done.stderr
    plain, relaxed, report = runs(tmp_path, "aim-exp")
    assert {run.data.tags["sweep"] for run in (plain, relaxed, report)} == {"sweep"}
    assert (plain.data.params["omega"], relaxed.data.params["omega"]) == ("None", "0.4")
    record = json.loads((tmp_path / "sweep" / "1" / "result.json").read_text())
    scores = {name: score["value"] for name, score in record["models"][-1]["scores"].items()}
    assert {f"score/{name}": value for name, value in scores.items()}.items() <= (
        relaxed.data.metrics.items()
    )
    assert "change/average" in relaxed.data.metrics
    assert {"tables/differences.json", "pages/report.html"} <= set(files(report))
    assert report.data.tags["kind"] == "report"
