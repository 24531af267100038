"""Runs and sweeps from the command line, as W&B has them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import run_here
from conftest import ROOT, Cli
from wandb_files import config_of, exit_codes, read_back, runs_to_sync, summary_of, table_in

pytestmark = pytest.mark.usefixtures("away_from_wandb")

SUITE = ("tiny_humaneval", "tiny_mbpp", "tiny_math", "tiny_gsm8k", "tiny_mmlu", "tiny_ifeval")
SWEEP = ("-m", "omega=null,0.4", "save_model=true", "hydra.sweep.dir=sweep")
BRIEF = ("benchmarks.limit=10", "tracker.project=trial")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, tiny_cache) -> Path:
    """A plain merge and the same with AIM, saved."""
    folder = tmp_path_factory.mktemp("tracked")
    run_in(folder, tiny_cache, *SWEEP)
    return folder / "sweep"


def run_in(folder: Path, cache: Path, *arguments: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB")]:
            patch.delenv(name)
        done = run_here(*arguments, *BRIEF, f"cache_dir={cache}", cwd=folder)
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


def test_a_job_leaves_little_beside_its_record(sweep, tiny_cache):
    """Tracked, drawn and logged; of the locks under which it worked, nothing."""
    files = [path for path in (sweep / "1").rglob("*") if path.is_file() and not path.is_symlink()]
    record = ("result.json", "items", "model")
    rest = [path for path in files if path.relative_to(sweep / "1").parts[0] not in record]
    assert len(rest) > 10
    assert sum(path.stat().st_size for path in rest) < 60_000
    assert [*tiny_cache.glob("leases/*"), *tiny_cache.glob("partial/*")] == []
    assert not list(tiny_cache.rglob("*.lock"))


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
    assert (summary["status"], summary.get("error")) == ("completed", None)

    run = next(each.run for each in records if each.HasField("run"))
    assert (run.run_group, run.job_type) == ("sweep", "merge")
    assert list(run.tags) == ["ties", "population=tiny", "benchmarks=tiny"]
    assert run.display_name == "ties omega=0.4"
    models = {row["model"]: row for row in table_in(sweep / "1", "population")}
    assert list(models) == ["base", "code", "instruct", "math", "merged"]
    assert {name: models["code"][name] for name in SUITE} == record["population_scores"]["code"]
    scores = {row["benchmark"]: row for row in table_in(sweep / "1", "scores")}
    assert {name: row["score"] for name, row in scores.items()} == record["scores"]
    assert scores["tiny_mmlu"]["items"] == record["models"][-1]["scores"]["tiny_mmlu"]["n"]
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


def test_a_plain_merge_after_it_completes_a_job(tmp_path, tiny_cache):
    """Whole: what its run had before is there too."""
    run_in(tmp_path, tiny_cache, "-m", "omega=null,0.4,0.2", *SWEEP[2:])
    folder = tmp_path / "sweep"
    jobs = [folder / job for job in "012"]
    plain, *relaxed = (result(job) for job in jobs)
    for job, record in zip(jobs[1:], relaxed, strict=True):
        records = read_back(job)
        summary = summary_of(records)
        for name in ("average", "hypervolume_gain"):
            assert summary[f"change/{name}"] == pytest.approx(record[name] - plain[name])
        assert summary["average"] == record["average"]
        assert config_of(records)["omega"] == record["omega"]
        run = next(each.run for each in records if each.HasField("run"))
        assert (run.run_group, run.job_type) == ("sweep", "merge")
        assert run.display_name == f"ties omega={record['omega']}"
        assert [r.artifact.type for r in records].count("model") == 1
        assert list(job.glob("wandb/offline-run-*/files/media/images/figures/pareto_front_*.png"))
        assert exit_codes(records) == [0]
    assert len(runs_to_sync(folder, *jobs)) == len(set(runs_to_sync(folder, *jobs))) == 4


def test_a_sweep_has_a_run_for_its_report(sweep):
    records = read_back(sweep)
    run = next(each.run for each in records if each.HasField("run"))
    assert (run.run_group, run.job_type, run.display_name) == ("sweep", "report", "report sweep")
    assert run.project == "trial"
    assert summary_of(records)["jobs"] == 2
    assert summary_of(records)["failed"] == 0
    assert config_of(records)["command"].startswith("python run.py -m omega=null,0.4 ")

    jobs = table_in(sweep, "runs")
    assert [job["omega"] for job in jobs] == [1, 0.4]
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
    names = {path.name.rpartition("_0_")[0] for path in (media / "images/figures").iterdir()}
    assert names == {path.stem for path in (sweep / "figures").glob("*.png")}
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
    assert result(tmp_path / "job")["status"] == "running"
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


def test_names_hold_what_varies(cli: Cli, tmp_path):
    """What all jobs have in common is left out; of a single run, what changes no number."""
    common = ("benchmarks=none", "+tracker.tags=[own]", "method.scale=0.9")
    sweep = ("-m", *common, "omega=null,0.4", "population.merge=[code,math],[code]", "device=cpu")
    assert cli(*sweep, "hydra.sweep.dir=sweep").returncode == 0
    assert cli(*common, "device=cpu", "hydra.run.dir=run").returncode == 0
    runs = [read_back(tmp_path / folder) for folder in ("sweep/0", "sweep/1", "sweep/2", "run")]
    names = [next(r.run.display_name for r in run if r.HasField("run")) for run in runs]
    assert names == [
        "ties omega=null population.merge=[code,math]",
        "ties omega=null population.merge=[code]",
        "ties omega=0.4 population.merge=[code,math]",
        "ties omega=0.4 benchmarks=none method.scale=0.9",
    ]
