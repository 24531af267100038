"""W&B: what is logged offline is read back; whatever fails costs a line, never a result."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from aim_exp import tracking
from aim_exp.records import RunRecord
from aim_exp.tracking import NullTracker, RunInfo, WandbTracker

RECORD = RunRecord(
    method="ties",
    omega=0.4,
    scores={"math": 0.25, "mmlu": 0.75},
    stderr={"math": 0.03, "mmlu": None},
    population_scores={"base": {"math": 0.2, "mmlu": 0.6}, "code": {"math": 0.1, "mmlu": 0.5}},
    reference_scores={"joint": {"math": 0.9, "mmlu": 0.95}},
    average=0.5,
    normalised_average=0.9,
    hypervolume=0.2,
    hypervolume_gain=0.3,
    hypervolume_gain_population=0.3,
    on_front=["base", "merged"],
    timings={"merge": 1.5},
)
CONFIG = {"omega": 0.4, "method": {"density": 0.2, "rescale": None}, "tags": ["a", "b"]}


def wandb_tracker(**changes: Any) -> WandbTracker:
    """The defaults of conf/tracker/wandb.yaml, but for `changes`."""
    settings = {"project": "aim-exp", "entity": None, "mode": "offline", "tags": ()}
    return WandbTracker(**{**settings, **changes})


@pytest.fixture(autouse=True)
def _away_from_home(tmp_path, monkeypatch):
    """No key, no settings of the user's, and a server that refuses connections."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    for name in ("SILENT", "DIR", "DATA_DIR", "CACHE_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", "")  # so that it is as before afterwards
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(WandbTracker, "_unreachable", False)


def info(directory: Path, name="ties omega=0.4") -> RunInfo:
    directory.mkdir(parents=True, exist_ok=True)
    return RunInfo(
        id=f"id{directory.name}",
        name=name,
        directory=directory,
        config=CONFIG,
        group="my sweep",
        tags=("ties", "tiny"),
    )


def read_back(directory: Path, patience=30) -> list[Record]:
    """The records of the one run below `directory`, once W&B's own process has closed it."""
    (path,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + patience
    records = records_in(path)
    while not exit_codes(records) and time.monotonic() < deadline:
        time.sleep(0.05)
        records = records_in(path)
    return records


def exit_codes(records: list[Record]) -> list[int]:
    return [record.exit.exit_code for record in records if record.HasField("exit")]


def records_in(path: Path) -> list[Record]:
    """LevelDB's log format, after 7 bytes."""
    data, position, parts, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # no header fits: the rest of the block is padding
            position += left
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]  # 1 whole, 2 first, 3 middle, 4 last
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4) and position <= len(data):
            records.append(Record.FromString(parts))
            parts = b""
    return records


def summary_of(records: list[Record]) -> dict[str, object]:
    """The last value of every key."""
    found: dict[str, object] = {}
    for record in records:
        for item in record.summary.update:
            found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found


def track(tracker: WandbTracker, directory: Path, record=RECORD, figure: Path | None = None):
    tracker.start(info(directory))
    tracker.finish(record, figure)
    return read_back(directory)


def test_offline_run_reads_back_as_it_was_logged(tmp_path, capfd):
    figure = tmp_path / "front.png"
    Image.new("RGB", (8, 8), "white").save(figure)
    tracker = wandb_tracker(project="merging", entity=None, tags=("mine",))
    records = track(tracker, tmp_path / "job", figure=figure)

    run = next(record.run for record in records if record.HasField("run"))
    assert (run.run_id, run.display_name, run.project) == ("idjob", "ties omega=0.4", "merging")
    assert (run.run_group, run.job_type) == ("my sweep", "merge")
    assert list(run.tags) == ["ties", "tiny", "mine"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {name: config[name] for name in CONFIG} == CONFIG

    summary = summary_of(records)
    assert summary["score/math"] == 0.25
    assert summary["stderr/math"] == 0.03
    assert "stderr/mmlu" not in summary
    assert summary["on_front"] is True
    assert (summary["hypervolume_gain"], summary["timings/merge"]) == (0.3, 1.5)
    assert (summary["average"], summary["normalised_average"]) == (0.5, 0.9)

    (table,) = (tmp_path / "job").rglob("results_*.table.json")
    assert json.loads(table.read_text()) == {
        "columns": ["model", "math", "mmlu"],
        "data": [
            ["base", 0.2, 0.6],
            ["code", 0.1, 0.5],
            ["joint", 0.9, 0.95],
            ["merged", 0.25, 0.75],
        ],
    }
    (image,) = (tmp_path / "job").rglob("pareto_front_*.png")
    assert image.read_bytes() == figure.read_bytes()
    assert exit_codes(records) == [0]
    assert "".join(capfd.readouterr()) == ""
    assert not (tmp_path / "home").exists()


def test_jobs_of_one_process_have_a_run_each(tmp_path):
    tracker = wandb_tracker()
    first = track(tracker, tmp_path / "0")
    second = track(tracker, tmp_path / "1", replace(RECORD, average=0.75))
    assert summary_of(first)["average"] == 0.5
    assert summary_of(second)["average"] == 0.75


def test_a_failed_job_ends_its_run_as_failed(tmp_path):
    failed = RunRecord(status="failed", error="omega=2: too much")
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
    monkeypatch.setattr(tracking, "ONLINE_TIMEOUT", 2)
    records = track(wandb_tracker(mode="online"), tmp_path / "job")
    assert summary_of(records)["average"] == 0.5
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1
    assert "not online" in out
    assert err == ""


def test_disabled_and_null_write_nothing(tmp_path):
    for tracker in (wandb_tracker(mode="disabled"), NullTracker()):
        tracker.start(info(tmp_path / "job"))
        tracker.finish(RECORD)
        assert tracker.problems() == []
    assert list((tmp_path / "job").iterdir()) == []


def test_a_mode_that_does_not_exist_is_a_problem():
    (problem,) = wandb_tracker(mode="foo").problems()
    assert problem.startswith("tracker.mode=foo: ")
    assert problem.endswith("use offline, online or disabled")


def test_an_error_in_finish_costs_a_line_and_the_run_is_closed(tmp_path, capsys):
    broken = tmp_path / "figure.png"
    broken.write_text("no picture")
    records = track(wandb_tracker(), tmp_path / "job", figure=broken)
    assert summary_of(records)["average"] == 0.5
    assert exit_codes(records) == [0]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("W&B: the run is incomplete")


def test_an_error_in_start_costs_a_line(tmp_path, capsys):
    tracker = wandb_tracker(project="no/such name")
    tracker.start(info(tmp_path / "job"))
    tracker.finish(RECORD)
    assert capsys.readouterr().out.startswith("W&B: not tracked")


def test_wandb_is_imported_late():
    code = "import sys, aim_exp.tracking; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
