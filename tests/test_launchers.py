"""Launchers: the same results from several processes; shared stages; how tasks end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from built_runs import built
from conftest import ROOT, Cli
from run_records import model_of, result
from worker_tasks import devices, die

from aim_exp.errors import AimError
from aim_exp.launchers.engines import Ticket
from aim_exp.launchers.stages import levels
from aim_exp.launchers.workers import Workers, gpus, worker_environments

FAST = ("benchmarks.limit=8", "tracker=none")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=4")


@pytest.fixture
def nothing_scored(tmp_path: Path, tiny_cache: Path) -> Path:
    """A cache with the population alone."""
    cache = tmp_path / "cache"
    shutil.copytree(tiny_cache / "population", cache / "population")
    return cache


def test_workers_give_what_one_process_gives(
    cli: Cli, tmp_path: Path, tiny_cache: Path, nothing_scored: Path
) -> None:
    sweep = ("-m", "method=ties,dare_ties", "omega=null,0.4", *FAST)
    done = cli(*sweep, *JOBLIB, "hydra.sweep.dir=joblib", cache=nothing_scored)
    assert done.returncode == 0, done.stderr
    assert "4 jobs, 4 scored" in done.stdout
    for line in ("4 of 5 shared stages, 0 of 4 jobs done", "scores of base", "4 of 4 jobs done"):
        assert line in done.stdout
    titles = [line for line in done.stdout.splitlines() if " of 4: " in line]
    assert sorted(titles)[0] == "1 of 4: ties omega=null"
    assert len(titles) == 4

    basic = cli(*sweep, "hydra.sweep.dir=basic")
    assert basic.returncode == 0
    tail = "4 jobs, 4 scored"
    assert (
        done.stdout.partition(tail)[2].replace("joblib", "basic")
        == (basic.stdout.partition(tail)[2])
    )
    for name in ("results.csv", "scores.csv", "differences.csv"):
        here, there = (pd.read_csv(tmp_path / kind / name) for kind in ("basic", "joblib"))
        assert len(here) >= 4
        timed = [column for column in ("seconds",) if column in here]
        pd.testing.assert_frame_equal(there.drop(columns=timed), here.drop(columns=timed))
    for number in "0123":
        here, there = (result(tmp_path / kind / number) for kind in ("basic", "joblib"))
        assert model_of(here)["keys"] == model_of(there)["keys"]
        assert there["command"] == here["command"].replace(str(tiny_cache), str(nothing_scored))
        shared = [
            stage for stage in there["stages"] if stage["name"] not in ("population", "merge")
        ]
        assert len(shared) in (4, 5)
        for stage in shared:
            assert stage["waited"] == 0, "no job waits for another"
            assert stage["made_at"] < datetime.fromisoformat(there["created"]).timestamp() + 1


def test_shared_stages_in_their_order(tmp_path: Path) -> None:
    """The population alone, then every member's scores and the saliency at once."""
    overrides = [("method=ties", "omega=0.4"), ("method=linear", "omega=null"), ("seed=1",)]
    runs = [(each, built(tmp_path, *each)) for each in overrides]
    population, rest = levels(runs)
    assert [stage.what for stage in population] == ["the population's training"]
    assert sorted(stage.what for stage in rest) == [
        "base's activations",
        *(f"scores of {name}, 6 benchmarks" for name in ("base", "code", "instruct", "math")),
    ]
    more = [("benchmarks.limit=4",), built(tmp_path, "benchmarks.limit=4")]
    same = levels([*runs, (more[0], more[1])])
    assert [len(level) for level in same] == [1, 5, 4], "the same responses: one behind the other"


def test_a_failed_shared_stage_fails_those_in_need(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("short\n\nshort, too\n")
    sweep = ("-m", "omega=null,0.4,0.2", "benchmarks=none", "tracker=none", "calibration=text")
    texts = (
        "calibration.path=texts.txt",
        "calibration.long_texts=skip",
        "calibration.block_size=1",
    )
    done = cli(*sweep, *texts, *JOBLIB[:1], "hydra.launcher.n_jobs=2", "hydra.sweep.dir=s")
    assert done.returncode == 1
    records = [result(tmp_path / "s" / number) for number in "012"]
    assert [record["status"] for record in records] == ["completed", "failed", "failed"]
    (left,) = (tmp_path / "s" / "shared" / "stages").glob("*/failed")
    assert records[1]["error"] == records[2]["error"] == left.read_text()
    assert records[1]["error"].startswith("calibration.block_size=1: ")
    told = done.stderr.splitlines()
    assert f"error: 2 of 3: {left.read_text()}" in told
    assert f"error: {left.read_text()}" in told, "behind the stage's title"


def test_a_library_that_is_missing_names_its_extra(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for launcher, module, extra in (
        ("slurm", "submitit", "slurm"),
        ("slurm_local", "submitit", "slurm"),
        ("ray", "ray", "ray"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        done = cli(
            "-m", "omega=null,1", "benchmarks=none", "tracker=none", f"hydra/launcher={launcher}"
        )
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            f"error: hydra/launcher={extra}: {module} is not installed; "
            f"pip install 'aim-exp[{extra}]'"
        ]


def test_jobs_that_end_with_the_command_cannot_be_detached(cli: Cli) -> None:
    plain = ("-m", "omega=null,1", "benchmarks=none", "tracker=none", "--detach")
    for launcher in (("hydra/launcher=joblib",), ()):
        done = cli(*plain, *launcher)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: --detach: ")


def carry_out(engine: Workers, *tasks: Callable[[], Any]) -> list[Ticket]:
    tickets: list[Ticket] = [Ticket(task) for task in tasks]  # type: ignore[arg-type]
    while still := [ticket for ticket in tickets if not ticket.ended]:
        engine.poll(still)
        time.sleep(0.02)
    return tickets


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lists the GPUs of this machine: a stand-in, that has two."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_a_worker_per_gpu() -> None:
    assert gpus() == ["0", "1"]
    engine = Workers(n_jobs=None, gpus_per_job=1)
    assert engine.slots == 2
    tickets = carry_out(engine, *[devices] * 4)
    engine.close()
    used = {tuple(ticket.returned) for ticket in tickets if ticket.returned}
    assert {device for _, device, _ in used} == {"0", "1"}
    assert len({pid for pid, _, _ in used}) == 2, "processes are kept"
    assert {workers for _, _, workers in used} == {"2"}


def test_gpus_are_dealt_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def dealt(*arguments: Any) -> list[str | None]:
        return [each.get("CUDA_VISIBLE_DEVICES") for each in worker_environments(*arguments)]

    assert dealt(["0", "1", "2", "3"], None, 2) == ["0,1", "2,3"]
    assert dealt(["0", "1", "2"], None, 2) == ["0,1"]
    assert dealt(["0", "1"], 3, 1) == ["0", "1", "0"]
    assert dealt([], 3, 1) == [None] * 3
    with pytest.raises(AimError, match="gpus_per_job=4: this machine has 2 GPUs"):
        dealt(["0", "1"], None, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5,GPU-7")
    assert gpus() == ["GPU-5", "GPU-7"]


def test_a_process_that_dies_takes_its_own_task_along() -> None:
    engine = Workers(n_jobs=2, gpus_per_job=0)
    tickets = carry_out(engine, devices, die, devices, devices)
    engine.close()
    assert [ticket.lost is None for ticket in tickets] == [True, False, True, True]
    assert "its process ended: " in (tickets[1].lost or "")


def test_ctrl_c_ends_what_was_begun(tmp_path: Path, tiny_cache: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "-m", "method=ties,linear,task_arithmetic"]
    command += ["omega=null,0.2,0.4", "tracker=none", "hydra.sweep.dir=s", *JOBLIB[:1]]
    with subprocess.Popen(
        [*command, "hydra.launcher.n_jobs=2", f"cache_dir={tiny_cache}"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        until = time.monotonic() + 200
        while not list((tmp_path / "s").glob("[0-9]/result.json")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)  # it alone, as `kill` does
        told, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.splitlines()[-1:] == [
        "error: interrupted; what is done is kept: the same command goes on from there"
    ]
    records = [json.loads(path.read_text()) for path in (tmp_path / "s").glob("[0-9]/result.json")]
    assert {(record["status"], record["error"]) for record in records} <= {
        ("completed", None),
        ("failed", "interrupted"),
    }
    assert any(record["status"] == "failed" for record in records)
    assert "interrupted" in told
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)
    assert left.stdout == "", "no process goes on"
