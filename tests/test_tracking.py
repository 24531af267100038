"""W&B: what is logged offline is read back; whatever fails costs a line, never a result."""

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from built_runs import built
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record
from wandb_files import (
    config_of,
    exit_codes,
    read_back,
    rows_of,
    runs_to_sync,
    summary_of,
    table_in,
)

from aim_exp.tracking import protocol as tracking
from aim_exp.tracking.none import NullTracker
from aim_exp.tracking.protocol import Outcome, RunInfo, SavedModel
from aim_exp.tracking.wandb import WandbTracker

pytestmark = pytest.mark.usefixtures("away_from_wandb")

OUTCOME = Outcome(
    metrics={"average": 0.5, "on_front": True, "score/math": 0.25, "score/mmlu": 0.75},
    details={"status": "completed", "error": None, "stderr/math": 0.03, "timings/merge": 1.5},
    tables={"scores": [{"benchmark": "math", "score": 0.25}, {"benchmark": "mmlu", "score": None}]},
)
CONFIG = {"omega": 0.4, "settings": {"method": {"density": 0.2, "rescale": None}}, "exclude": ["a"]}


def wandb_tracker(**changes: Any) -> WandbTracker:
    """The defaults of conf/tracker/wandb.yaml, but for `changes`."""
    settings = {"project": "aim-exp", "entity": None, "mode": "offline", "tags": ()}
    return WandbTracker(**{**settings, **changes})


def info(directory: Path, name="ties omega=0.4") -> RunInfo:
    directory.mkdir(parents=True, exist_ok=True)
    return RunInfo(
        id=f"id{directory.name}",
        name=name,
        directory=directory.resolve(),
        config=CONFIG,
        group="my sweep",
        tags=("ties", "tiny"),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tags": ("short", "t" * 65)}, "tracker.tags: W&B takes tags of 1 to 64 .* t{65}"),
        ({"project": "a/b"}, "tracker.project=a/b: W&B takes 1 to 128 characters, and none of"),
        ({"project": "p" * 129}, "W&B takes 1 to 128 characters"),
        ({"mode": "dryrun"}, "tracker.mode=dryrun: no such mode; use offline, online or disabled"),
    ],
)
def test_what_wandb_would_refuse(changes: dict[str, Any], words: str) -> None:
    (problem,) = wandb_tracker(**changes).problems()
    assert re.match(f".*{words}", problem)


def test_wandbs_own_mode_counts_where_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for said, mode in (("disabled", "disabled"), (None, "offline")):
        if said:
            monkeypatch.setenv("WANDB_MODE", said)
        else:
            monkeypatch.delenv("WANDB_MODE", raising=False)
        tracker = built(tmp_path / "cache", "benchmarks=none", "omega=null").tracker
        assert isinstance(tracker, WandbTracker)
        assert tracker.mode == mode
        assert not tracker.problems()


def test_long_names_of_options_are_cut_to_a_tag(tmp_path: Path) -> None:
    tracking.start(tracker := wandb_tracker(), replace(info(tmp_path / "job"), tags=("m" * 80,)))
    tracking.finish(tracker, OUTCOME, tmp_path)
    run = next(r.run for r in read_back(tmp_path / "job") if r.HasField("run"))
    assert list(run.tags) == ["m" * 64]


def track(tracker: WandbTracker, directory: Path, outcome: Outcome = OUTCOME) -> list[Record]:
    tracking.start(tracker, info(directory))
    tracking.finish(tracker, outcome, directory)
    return read_back(directory)


def png(path: Path) -> Path:
    Image.new("RGB", (8, 8), "white").save(path)
    return path


def test_offline_run_reads_back_as_it_was_logged(tmp_path, capfd):
    figure = png(tmp_path / "front.png")
    page = tmp_path / "report.html"
    page.write_text("<html><head></head>a page</html>")
    outcome = replace(OUTCOME, figures={"front": figure}, pages={"report": page})
    tracker = wandb_tracker(project="merging", entity=None, tags=("mine",))
    records = track(tracker, tmp_path / "job", outcome)

    run = next(record.run for record in records if record.HasField("run"))
    assert (run.run_id, run.display_name, run.project) == ("idjob", "ties omega=0.4", "merging")
    assert (run.run_group, run.job_type) == ("my sweep", "merge")
    assert list(run.tags) == ["ties", "tiny", "mine"]
    config = config_of(records)
    assert {name: config[name] for name in CONFIG} == CONFIG

    summary = summary_of(records)
    values = {**OUTCOME.metrics, **OUTCOME.details}
    known = {name: value for name, value in values.items() if value is not None}
    assert {name: summary[name] for name in values.keys() & summary.keys()} == known
    (row,) = rows_of(records)
    assert {name: row[name] for name in OUTCOME.metrics} == OUTCOME.metrics
    assert not OUTCOME.details.keys() & row.keys()

    assert table_in(tmp_path / "job", "scores") == [
        {"benchmark": "math", "score": 0.25}, {"benchmark": "mmlu", "score": None},
    ]  # fmt: skip
    (media,) = (tmp_path / "job" / "wandb").glob("offline-run-*/files/media")
    (image,) = media.glob("images/figures/front_*.png")
    assert image.read_bytes() == figure.read_bytes()
    (logged,) = media.glob("html/pages/report_*.html")
    assert logged.read_text() == page.read_text()
    assert exit_codes(records) == [0]
    assert "".join(capfd.readouterr()) == ""
    assert not (tmp_path / "home").exists()


def test_a_model_is_an_artifact_that_leaves_its_weights_where_they_are(tmp_path):
    folder = tmp_path / "job" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1_000_000))
    model = SavedModel(folder, {"config": {"omega": 0.4}})
    records = track(wandb_tracker(), tmp_path / "job", replace(OUTCOME, model=model))

    artifacts = [record.artifact for record in records if record.HasField("artifact")]
    (artifact,) = [each for each in artifacts if each.type == "model"]
    assert artifact.name == "model-idjob"
    assert json.loads(artifact.metadata) == {"config": {"omega": 0.4}}
    config, weights = artifact.manifest.contents
    assert (config.path, config.local_path, config.ref) == (
        "config.json", str(folder / "config.json"), "",
    )  # fmt: skip
    assert (weights.path, weights.local_path, weights.size) == ("model.safetensors", "", 1_000_000)
    assert weights.ref == (folder / "model.safetensors").as_uri()
    held = sum(path.stat().st_size for path in (tmp_path / "job/wandb").rglob("*"))
    assert held < 500_000


def test_jobs_of_one_process_have_a_run_each(tmp_path):
    tracker = wandb_tracker()
    first = track(tracker, tmp_path / "0")
    second = track(tracker, tmp_path / "1", replace(OUTCOME, metrics={"average": 0.75}))
    assert summary_of(first)["average"] == 0.5
    assert summary_of(second)["average"] == 0.75


def test_a_tag_that_is_given_twice_is_there_once(tmp_path):
    records = track(wandb_tracker(tags=("mine", "ties")), tmp_path / "job")
    run = next(record.run for record in records if record.HasField("run"))
    assert list(run.tags) == ["ties", "tiny", "mine"]


def test_a_run_again_replaces_what_was_logged_offline(tmp_path):
    tracker = wandb_tracker()
    track(tracker, tmp_path / "job", Outcome(succeeded=False, details={"error": "omega"}))
    records = track(tracker, tmp_path / "job")
    assert (summary_of(records)["average"], summary_of(records).get("error")) == (0.5, None)
    assert exit_codes(records) == [0]
    assert runs_to_sync(tmp_path / "job") == ["idjob"]


def test_a_failed_job_ends_its_run_as_failed(tmp_path):
    failed = Outcome(succeeded=False, details={"error": "omega=2: too much"})
    records = track(wandb_tracker(), tmp_path / "job", failed)
    assert exit_codes(records) == [1]
    assert summary_of(records)["error"] == "omega=2: too much"


def test_online_without_a_key_goes_on_offline_and_says_so_once(tmp_path, capsys):
    for job in "01":
        records = track(wandb_tracker(mode="online"), tmp_path / job)
        assert summary_of(records)["average"] == 0.5
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "no API key" in said[0]


def test_online_without_a_network_goes_on_offline(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr("aim_exp.tracking.wandb.ONLINE_TIMEOUT", 2)
    records = track(wandb_tracker(mode="online"), tmp_path / "job")
    assert summary_of(records)["average"] == 0.5
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1
    assert "not online" in out
    assert err == ""


def test_disabled_and_null_write_nothing(tmp_path):
    for tracker in (wandb_tracker(mode="disabled"), NullTracker()):
        tracker.start(info(tmp_path / "job"))
        tracker.finish(OUTCOME)
        assert tracker.problems() == []
    assert list((tmp_path / "job").iterdir()) == []


def test_a_mode_that_does_not_exist_is_a_problem():
    (problem,) = wandb_tracker(mode="foo").problems()
    assert problem.startswith("tracker.mode=foo: ")
    assert problem.endswith("use offline, online or disabled")


def test_an_error_in_finish_costs_a_line_and_the_run_is_closed(tmp_path, capsys):
    broken = tmp_path / "figure.png"
    broken.write_text("no picture")
    outcome = replace(OUTCOME, figures={"front": broken})
    records = track(wandb_tracker(), tmp_path / "job", outcome)
    assert summary_of(records)["average"] == 0.5
    assert exit_codes(records) == [0]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("tracker: tracked incompletely (")


def test_an_error_in_start_costs_a_line(tmp_path, capsys):
    tracker = wandb_tracker(project="no/such name")
    tracking.start(tracker, info(tmp_path / "job"))
    tracking.finish(tracker, OUTCOME, tmp_path)
    assert capsys.readouterr().out.startswith("tracker: not tracked (")


def test_a_disk_without_room_for_the_tracker_names_key_and_path(tmp_path, capsys, monkeypatch):
    def full(tracker: WandbTracker, run: RunInfo) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run.directory / "wandb"))

    monkeypatch.setattr(WandbTracker, "start", full)
    tracking.start(wandb_tracker(), info(tmp_path / "job"))
    assert capsys.readouterr().out.startswith(
        f"tracker: not tracked (hydra.run.dir or hydra.sweep.dir={tmp_path / 'job'}: no room left "
        "on the disk for the tracker's files; "
    )


def test_wandb_is_imported_late():
    code = "import sys, aim_exp.tracking.wandb; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
