"""What a run leaves behind: a record that says all, a folder that is whole, no secrets."""

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import pandas as pd
import pytest
from conftest import ROOT, Cli
from run_records import items_of, result

import aim_exp
from aim_exp import run_experiment
from aim_exp.app import job
from aim_exp.run.pipeline import Pipeline
from aim_exp.statistics import smallest_detectable
from aim_exp.store.run_record import read_record

FAST = ("benchmarks.limit=8", "tracker=none")


def test_a_runs_first_act_is_to_say_that_it_runs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run's old record is put aside, and a run that is killed does not look finished."""
    assert cli(*FAST, "hydra.run.dir=run", "benchmarks=none", "omega=null").returncode == 0
    statuses = []

    def watched(pipeline: Pipeline) -> None:
        statuses.append(result(tmp_path / "run")["status"])
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "execute", watched)
    assert cli(*FAST, "hydra.run.dir=run", "seed=3").returncode == 130
    record = result(tmp_path / "run")
    assert statuses == ["running"]
    assert (record["status"], record["error"]) == ("failed", "interrupted")
    assert record["config"]["seed"] == 3


def test_the_configuration_is_recorded_whole(cli: Cli, tmp_path: Path) -> None:
    assert cli(*FAST, "hydra.run.dir=run", "method.density=0.3").returncode == 0
    record = result(tmp_path / "run")
    assert record["schema_version"] == 2
    assert record["config"]["method"]["density"] == 0.3
    assert record["config"]["evaluator"]["max_length"] is None
    assert record["choices"]["method"] == "ties"
    assert record["overrides"][-1].startswith("cache_dir=")
    assert read_record(tmp_path / "run").config == record["config"]
    assert [model["role"] for model in record["models"]] == [
        "base", "expert", "expert", "expert", "merged",
    ]  # fmt: skip
    for model in record["models"]:
        assert all(score["metrics"] for score in model["scores"].values())
        (item, *_) = items_of(tmp_path / "run", "tiny_mmlu", model["name"])
        assert item["prompt"].startswith("Question:")
        assert len(item["choices"]) == 4
    names = [stage["name"] for stage in record["stages"]]
    assert names[:2] == ["population", "calibrate"]
    assert names[-1] == "merge"
    assert record["stages"][-1]["needs"] == ["population", "calibrate"]


def test_secrets_stay_where_they_are(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hidden-7f3a")
    settings = (
        "tracker=wandb", "tracker.mode=disabled", "tracker.project=${oc.env:TOKEN}",
        "tracker.entity='postgres://me:pw-91c@host/db'",
    )  # fmt: skip
    done = cli("benchmarks.limit=8", *settings, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    record = result(tmp_path / "run")
    assert record["config"]["tracker"]["project"] == "***"
    assert record["config"]["tracker"]["entity"] == "postgres://***@host/db"
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 20
    everything = b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in files
    )
    assert b"hidden-7f3a" not in everything
    assert b"pw-91c" not in everything


def test_files_from_outside_are_kept(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "method"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "conf" / "method" / "ties.yaml", folder / "my_ties.yaml")
    path = f"hydra.searchpath=[file://{folder.parent}]"
    done = cli(*FAST, "method=my_ties", path, "benchmarks=none", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "run" / "shared" / "config").rglob("*.yaml")
    assert kept.name == "my_ties.yaml"
    assert kept.read_text() == (folder / "my_ties.yaml").read_text()


@pytest.mark.slow
def test_a_folder_is_whole(cli: Cli, tmp_path: Path, tiny_cache: Path) -> None:
    """Without the cache, moved, from elsewhere, in a new process: byte for byte the same."""
    cache = tmp_path / "cache"
    shutil.copytree(tiny_cache / "population", cache / "population")
    done = cli("-m", "omega=null,0.4", *FAST, "hydra.sweep.dir=s", cache=cache)
    assert done.returncode == 0, done.stderr
    names = ("results.csv", "scores.csv", "differences.csv", "report.md", "report.html")
    before = {name: (tmp_path / "s" / name).read_bytes() for name in names}
    shutil.rmtree(cache)
    for name in names:
        (tmp_path / "s" / name).unlink()
    (tmp_path / "away").mkdir()
    moved = (tmp_path / "s").rename(tmp_path / "moved")
    subprocess.run(
        [sys.executable, "-m", "aim_exp.report", str(moved)],
        cwd=tmp_path / "away",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    for name in names:
        assert (moved / name).read_bytes() == before[name], name
    frame = pd.read_csv(moved / "results.csv")
    assert frame.groupby("omega").average.mean().index.tolist() == [0.4, 1.0]


def test_a_job_pickles_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(job)) is job


def test_another_sweep_does_not_enter_a_sweeps_folder(cli: Cli, tmp_path: Path) -> None:
    plain = ("-m", "benchmarks=none", "tracker=none", "hydra.sweep.dir=s")
    assert cli(*plain, "omega=null,1").returncode == 0
    listing = (tmp_path / "s" / "sweep.json").read_text()
    assert [job["name"] for job in json.loads(listing)["jobs"]] == ["0", "1"]
    done = cli(*plain, "method=linear", "omega=null")
    assert done.returncode == 1
    assert "hydra.sweep.dir=s: holds the runs of another sweep" in done.stderr
    assert (tmp_path / "s" / "sweep.json").read_text() == listing
    assert cli(*plain, "omega=null,1").returncode == 0, "its own command goes on with it"


def test_one_run_from_python(tmp_path: Path, tiny_cache: Path) -> None:
    record = run_experiment(
        "omega=0.4", *FAST, f"cache_dir={tiny_cache}", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert record.status == "completed"
    assert record == read_record(tmp_path / "run")
    assert record.merged
    assert record.merged.scores["tiny_math"].n == 8
    refused = run_experiment("omega=7", *FAST, f"hydra.run.dir={tmp_path / 'refused'}")
    assert (refused.status, refused.error) == ("failed", "omega=7.0: must be in [0, 1]")


def test_a_plan_refuses_what_headers_tell(cli: Cli, tmp_path: Path) -> None:
    done = cli("plan=true", "calibration.block_size=512")
    assert done.returncode == 1
    assert "calibration.block_size=512: base takes at most 256 tokens" in done.stderr
    untrained = cli("plan=true", "population.seed=77")
    assert untrained.returncode == 0
    assert "unchecked" in untrained.stdout
    assert "5.0, 7.1, 10.0 points on tiny_humaneval, tiny_mbpp" in untrained.stdout
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_a_plan_says_what_cached_scores_would_show(cli: Cli, tmp_path: Path) -> None:
    """Of base and each expert, by the deviation of their differences on the same items."""
    small = ("benchmarks.limit=12", "calibration.n_samples=4", "tracker=none")
    scored = cli("method=none", *small, "hydra.run.dir=run")
    assert scored.returncode == 0, scored.stderr
    items = aim_exp.items(tmp_path / "run").query("benchmark == 'tiny_gsm8k'")
    table = items.pivot_table(index="doc_id", columns="model", values="value")
    least = [smallest_detectable((table[name] - table["base"]).std(), len(table))
             for name in ("code", "instruct", "math")]  # fmt: skip
    planned = cli("plan=true", *small).stdout
    assert f"{100 * median(least):.1f} on tiny_gsm8k" in " ".join(planned.split())
    assert "12 items" not in planned
