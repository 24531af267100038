"""W&B: what is logged offline is read back; whatever fails costs a line, never a result."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Cli
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from aim_exp import tracking
from aim_exp.tracking import NullTracker, Outcome, RunInfo, SavedModel, Table, WandbTracker

OUTCOME = Outcome(
    metrics={"average": 0.5, "on_front": True, "score/math": 0.25, "score/mmlu": 0.75},
    details={"status": "completed", "error": None, "stderr/math": 0.03, "timings/merge": 1.5},
    tables={"scores": Table(("benchmark", "score"), (("math", 0.25), ("mmlu", None)))},
)
CONFIG = {"omega": 0.4, "settings": {"method": {"density": 0.2, "rescale": None}}, "exclude": ["a"]}
SUITE = ("humaneval", "mbpp", "math", "gsm8k", "mmlu", "ifeval")
SWEEP = ("-m", "omega=null,0.4", "save_model=true", "hydra.sweep.dir=sweep")
BRIEF = ("benchmarks.limit=10", "tracker.project=trial")


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
        directory=directory.resolve(),
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


def summary_of(records: list[Record]) -> dict[str, Any]:
    """The last value of every key; `tables/scores` for what is nested in it, too."""
    found: dict[str, Any] = {}
    for record in records:
        for item in record.summary.update:
            found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found


def config_of(records: list[Record]) -> dict[str, Any]:
    run = next(record.run for record in records if record.HasField("run"))
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def rows_of(records: list[Record]) -> list[dict[str, Any]]:
    """What was logged at a step each."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in (record.history for record in records if record.HasField("history"))
    ]


def table_in(directory: Path, name: str) -> list[dict[str, Any]]:
    """A logged table, as rows by column."""
    (path,) = directory.glob(f"wandb/offline-run-*/files/media/table/tables/{name}_*.table.json")
    table = json.loads(path.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def track(tracker: WandbTracker, directory: Path, outcome: Outcome = OUTCOME) -> list[Record]:
    tracking.start(tracker, info(directory))
    tracking.finish(tracker, outcome)
    return read_back(directory)


def png(path: Path) -> Path:
    Image.new("RGB", (8, 8), "white").save(path)
    return path


def test_offline_run_reads_back_as_it_was_logged(tmp_path, capfd):
    figure = png(tmp_path / "front.png")
    page = tmp_path / "report.html"
    page.write_text("<html><head></head>a page</html>")
    chart = {"data": [{"type": "parcoords", "dimensions": []}], "layout": {}}
    outcome = replace(
        OUTCOME, figures={"front": figure}, charts={"lines": chart}, pages={"report": page}
    )
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
    assert {name: summary[name] for name in values} == values
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
    (lines,) = media.glob("plotly/charts/lines_*.plotly.json")
    assert json.loads(lines.read_text())["data"][0]["type"] == "parcoords"
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


def test_a_run_again_replaces_what_was_logged_offline(tmp_path):
    tracker = wandb_tracker()
    track(tracker, tmp_path / "job", Outcome(succeeded=False, details={"error": "omega"}))
    records = track(tracker, tmp_path / "job")
    assert (summary_of(records)["average"], summary_of(records)["error"]) == (0.5, None)
    assert exit_codes(records) == [0]
    assert runs_to_sync(tmp_path / "job") == ["idjob"]


def runs_to_sync(*directories: Path) -> list[str]:
    """The ids of the runs that `wandb sync` would upload."""
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "sync", "--dry-run",
         *[path for folder in directories for path in folder.glob("wandb/offline-run-*")]],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    said = done.stdout + done.stderr
    return sorted(line.rsplit("run-")[-1].removesuffix(".wandb")
                  for line in said.splitlines() if line.endswith(".wandb"))  # fmt: skip


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
    tracking.finish(tracker, OUTCOME)
    assert capsys.readouterr().out.startswith("tracker: not tracked (")


def test_wandb_is_imported_late():
    code = "import sys, aim_exp.tracking; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, tiny_cache) -> Path:
    """A plain merge and the same with AIM, saved."""
    folder = tmp_path_factory.mktemp("tracked")
    run_in(folder, tiny_cache, *SWEEP)
    return folder / "sweep"


def run_in(folder: Path, cache: Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", *arguments, *BRIEF, f"cache_dir={cache}"],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=clean,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def result(directory: Path) -> Mapping[str, Any]:
    return json.loads((directory / "result.json").read_text())


def test_a_job_is_described_by_plain_names(sweep):
    plain, relaxed = (config_of(read_back(sweep / job)) for job in "01")
    named = {"method": "ties", "omega": 0.4, "omega_axis": 0.4, "density": 0.2, "seed": 0,
             "suite": "tiny", "population": "tiny", "calibration": "tiny", "dtype": "float32",
             "experts": "code+instruct+math", "scaling": "identity"}  # fmt: skip
    assert {name: relaxed[name] for name in named} == named
    assert (plain["omega"], plain["omega_axis"]) == (None, 1)
    assert "scaling" not in plain
    assert relaxed["settings"]["method"]["density"] == 0.2
    assert relaxed["settings"]["tracker"]["project"] == "trial"


def test_a_job_logs_what_its_record_says(sweep):
    record, records = result(sweep / "1"), read_back(sweep / "1")
    summary = summary_of(records)
    for name in SUITE:
        assert summary[f"score/{name}"] == record["scores"][name]
        assert summary[f"stderr/{name}"] == record["stderr"][name]
    for name in ("average", "hypervolume", "hypervolume_gain", "hypervolume_gain_population"):
        assert summary[name] == record[name]
    assert summary["on_front"] == ("merged" in record["on_front"])
    assert summary["timings/total"] == record["timings"]["total"]
    assert (summary["status"], summary["error"]) == ("completed", None)

    run = next(each.run for each in records if each.HasField("run"))
    assert (run.run_group, run.job_type) == ("sweep", "merge")
    assert list(run.tags) == ["ties", "tiny", "tiny"]
    models = {row["model"]: row for row in table_in(sweep / "1", "population")}
    assert list(models) == ["base", "code", "instruct", "math", "merged"]
    assert {name: models["code"][name] for name in SUITE} == record["population_scores"]["code"]
    scores = {row["benchmark"]: row for row in table_in(sweep / "1", "scores")}
    assert {name: row["score"] for name, row in scores.items()} == record["scores"]
    assert scores["mmlu"]["items"] == record["n_items"]["mmlu"]
    (artifact,) = [r.artifact for r in records if r.artifact.type == "model"]
    assert json.loads(artifact.metadata)["config"]["omega"] == 0.4
    assert {entry.path for entry in artifact.manifest.contents} == {
        path.name for path in (sweep / "1/model").iterdir()
    }


def test_a_job_is_compared_with_the_plain_merge_before_it(sweep):
    plain, relaxed = result(sweep / "0"), result(sweep / "1")
    summary = summary_of(read_back(sweep / "1"))
    for name in ("average", "hypervolume_gain"):
        assert summary[f"change/{name}"] == pytest.approx(relaxed[name] - plain[name])
    for name in SUITE:
        difference = relaxed["scores"][name] - plain["scores"][name]
        assert summary[f"change/{name}"] == pytest.approx(difference)
    assert not any(name.startswith("change/") for name in summary_of(read_back(sweep / "0")))


def test_a_sweep_has_a_run_for_its_report(sweep):
    records = read_back(sweep)
    run = next(each.run for each in records if each.HasField("run"))
    assert (run.run_group, run.job_type, run.display_name) == ("sweep", "report", "report sweep")
    assert run.project == "trial"
    assert summary_of(records)["jobs"] == 2
    assert summary_of(records)["failed"] == 0
    assert config_of(records)["command"].startswith("python run.py -m omega=null,0.4 ")

    jobs = table_in(sweep, "runs")
    assert [job["omega"] for job in jobs] == [None, 0.4]
    assert [job["average"] for job in jobs] == [result(sweep / job)["average"] for job in "01"]
    assert [row["model"] for row in table_in(sweep, "population")] == [
        "base", "code", "instruct", "math",
    ]  # fmt: skip
    differences = table_in(sweep, "differences")
    assert [row["quantity"] for row in differences] == ["average", "hypervolume gain", *SUITE]
    average = result(sweep / "1")["average"] - result(sweep / "0")["average"]
    assert differences[0]["difference"] == pytest.approx(average)
    assert differences[0]["low"] <= average <= differences[0]["high"]

    (media,) = (sweep / "wandb").glob("offline-run-*/files/media")
    drawn = {path.name.rpartition("_0_")[0] for path in (media / "images/figures").iterdir()}
    assert drawn == {path.stem for path in (sweep / "figures").glob("*.png")}
    (chart,) = media.glob("plotly/charts/parallel_coordinates_*.plotly.json")
    axes = json.loads(chart.read_text())["data"][0]["dimensions"]
    assert [axis["label"] for axis in axes] == [
        "method", "omega", "average", "hypervolume gain", *SUITE,
    ]  # fmt: skip
    assert axes[1] | {"label": ""} == {
        "label": "", "values": [1, 0.4], "tickvals": [1, 0.4], "ticktext": ["null", "0.4"],
    }  # fmt: skip
    (page,) = media.glob("html/pages/report_*.html")
    assert page.read_bytes() == (sweep / "report.html").read_bytes()


def test_a_sweep_again_continues_its_runs(sweep, tiny_cache):
    directories = (sweep, sweep / "0", sweep / "1")
    before, logged = runs_to_sync(*directories), read_back(sweep)
    run_in(sweep.parent, tiny_cache, *SWEEP)
    assert runs_to_sync(*directories) == before
    assert len(set(before)) == 3
    assert read_back(sweep) != logged
    assert summary_of(read_back(sweep))["jobs"] == 2


def test_a_killed_job_run_again_is_one_complete_run(tmp_path, tiny_cache):
    """kill -9 after its run began; the same command goes on."""
    first = subprocess.Popen(
        [sys.executable, ROOT / "run.py", "hydra.run.dir=job", *BRIEF, f"cache_dir={tiny_cache}"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("job/wandb/offline-run-*/*.wandb")):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "job/result.json").exists()
    before = runs_to_sync(tmp_path / "job")
    run_in(tmp_path, tiny_cache, "hydra.run.dir=job")
    records = read_back(tmp_path / "job")
    assert runs_to_sync(tmp_path / "job") == before
    assert len(before) == 1
    assert summary_of(records)["average"] == result(tmp_path / "job")["average"]
    assert exit_codes(records) == [0]


def test_a_sweep_of_failures_is_reported_too(tmp_path, tiny_cache, cli: Cli):
    done = cli("-m", "omega=2,3", "hydra.sweep.dir=failing", cache=tiny_cache)
    assert done.returncode == 1
    records = read_back(tmp_path / "failing")
    assert (summary_of(records)["jobs"], summary_of(records)["failed"]) == (2, 2)
    jobs = table_in(tmp_path / "failing", "runs")
    assert ["omega=2" in job["error"] for job in jobs] == [True, False]
    assert exit_codes(records) == [0]


def test_a_sweep_without_a_tracker_has_no_run(cli: Cli, tmp_path):
    done = cli("-m", "omega=null,0.4", "tracker=none", *BRIEF[:1], "hydra.sweep.dir=quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "quiet/report.html").exists()
    assert not list((tmp_path / "quiet").rglob("wandb"))
