"""`make check-launchers`: each launcher gives the basic one's results, however it is interrupted.

Real workers, a Slurm of one node, a Ray of two. The table at the end goes into docs/cluster.md.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT

from aim_exp.evaluate.responses import kept_responses

SWEEP = (
    "-m",
    "method=ties,dare_ties",
    "omega=null,0.4",
    "benchmarks.limit=16",
    "evaluator.batch_size=1",
)
SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1",
)  # fmt: skip
JOBS = 4
GONE_WITHIN = 60
"""Seconds in which a job that ended without a result is told as failed."""


@dataclass
class Row:
    launcher: str
    interrupted: str
    seconds: float


ROWS: list[Row] = []


@dataclass
class Sweep:
    """A command that runs in a process of its own."""

    folder: Path
    cache: Path
    process: subprocess.Popen[str]
    began: float

    def wait_for(self, what: Callable[[], Any], *, detached: bool = False) -> Any:
        """What becomes true while it runs."""
        until = time.monotonic() + 300
        while not (found := what()):
            assert time.monotonic() < until
            assert detached or self.process.poll() is None, self.end()
            time.sleep(0.02)
        return found

    def answering(self) -> str | None:
        """The folder of a job that is in the middle of its answers."""
        for folder in sorted(self.folder.glob("[0-9]")):
            if (
                answers(self.cache, processes(folder)[-1:]) > 3
                and record(self, folder.name)["status"] == "running"
            ):
                return folder.name
        return None

    def end(self, status: int = 0) -> str:
        """What it printed, when it has ended as it should."""
        output, errors = self.process.communicate(timeout=600)
        assert self.process.returncode == status, output[-3000:] + errors[-3000:]
        return output + errors

    def note(self, launcher: str, interrupted: str = "") -> None:
        """A row of the table: its results are the basic launcher's."""
        ROWS.append(Row(launcher, interrupted, time.monotonic() - self.began))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launchers")


@pytest.fixture
def begin(results: Path, tiny_cache: Path) -> Iterator[Callable[..., Sweep]]:
    begun: list[Sweep] = []

    def begin(name: str, *overrides: str, again: bool = False, **environment: str) -> Sweep:
        folder, cache = results / name, results / f"{name}-cache"
        if not again:
            shutil.copytree(tiny_cache / "population", cache / "population")
        command = [sys.executable, str(ROOT / "run.py"), *SWEEP, f"cache_dir={cache}"]
        process = subprocess.Popen(
            [*command, f"hydra.sweep.dir={folder}", *overrides],
            cwd=results,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "120", **environment},
        )
        begun.append(Sweep(folder, cache, process, time.monotonic()))
        return begun[-1]

    yield begin
    for sweep in begun:
        if sweep.process.poll() is None:
            sweep.process.send_signal(signal.SIGINT)
            sweep.process.wait(90)


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    lines = ["| launcher | jobs | results equal | interrupted | seconds |", "|---|---|---|---|---|"]
    lines += [f"| {r.launcher} | {JOBS} | yes | {r.interrupted} | {r.seconds:.0f} |" for r in ROWS]
    print("\n" + "\n".join(lines), file=sys.__stderr__)


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    script = Path(__file__).parent / "slurm_node.sh"
    subprocess.run([script, "start"], check=True)
    yield
    subprocess.run([script, "stop"], check=True)


def same_as_basic(results: Path, name: str) -> None:
    for file in ("results.csv", "scores.csv", "differences.csv"):
        basic, other = (pd.read_csv(results / kind / file) for kind in ("basic", name))
        assert len(basic) >= JOBS
        timed = [column for column in ("seconds",) if column in basic]
        pd.testing.assert_frame_equal(other.drop(columns=timed), basic.drop(columns=timed))


def record(sweep: Sweep, job: str) -> dict[str, Any]:
    return json.loads((sweep.folder / job / "result.json").read_text())


def job_of(sweep: Sweep, folder: str) -> str:
    """Slurm's number of the job in a folder, of the last array handed in."""
    (array,) = {
        path.name.partition("_")[0] for path in sweep.folder.glob(f".submitit/*_{JOBS - 1}")
    } - {path.name.partition("_")[0] for path in sweep.folder.glob(f".submitit/*_{JOBS}")}
    return f"{array}_{folder}"


def processes(folder: Path) -> list[str]:
    """Those that carried out the task of a folder, one after the other."""
    log = folder / "output.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[3].rstrip(")") for line in lines if line.startswith("on ")]


def responses(sweep: Sweep, job: str) -> dict[str, Any]:
    """What is kept of the merged model of a job."""
    key = record(sweep, job)["models"][-1]["keys"]["responses"]
    return kept_responses(sweep.cache / "responses" / key)


def answers(cache: Path, of: list[str]) -> int:
    """How many answers of models those processes have kept."""
    files = [path for pid in of for path in cache.glob(f"responses/*/responses.*-{pid}.jsonl")]
    return sum(len(path.read_text().splitlines()) for path in files)


def test_basic(begin: Callable[..., Sweep]) -> None:
    sweep = begin("basic")
    sweep.end()
    sweep.note("basic")


@pytest.mark.parametrize("workers", [2, 4])
def test_joblib(begin: Callable[..., Sweep], results: Path, workers: int) -> None:
    name = f"joblib-{workers}"
    sweep = begin(name, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}")
    sweep.end()
    same_as_basic(results, name)
    sweep.note(f"joblib, {workers} workers")
    spans = []
    for job in "0123":
        for stage in record(sweep, job)["stages"]:
            assert not stage["waited"], "no worker waits for another"
            if stage["name"].startswith("score ") and job == "0":
                spans.append((stage["made_at"] - stage["seconds"], stage["made_at"]))
    at_once = [sum(a <= began < b for a, b in spans) for began, _ in spans]
    assert len(spans) == 4
    assert max(at_once) >= 2, "members are scored at once"


def test_slurm_local(begin: Callable[..., Sweep], results: Path) -> None:
    sweep = begin("slurm_local", "hydra/launcher=slurm_local", "hydra.launcher.n_jobs=2")
    sweep.end()
    same_as_basic(results, "slurm_local")
    sweep.note("slurm_local, 2 workers")


@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize("how", ["time is up", "preempted"])
def test_slurm_goes_on(begin: Callable[..., Sweep], results: Path, how: str) -> None:
    """The signal that comes before the time limit; a requeue by Slurm, which kills the job."""
    name = how.replace(" ", "-")
    sweep = begin(name, *SLURM)
    folder = sweep.wait_for(sweep.answering)
    job = job_of(sweep, folder)
    ask = ["scancel", "--signal=USR2"] if how == "time is up" else ["scontrol", "requeue"]
    subprocess.run([*ask, job], check=True)
    sweep.end()
    same_as_basic(results, name)
    sweep.note("slurm", f"{how}: one job back into the queue")
    first, second = processes(sweep.folder / folder)
    assert answers(sweep.cache, [first]) > 3 < answers(sweep.cache, [second])
    assert len(responses(sweep, folder)) == answers(sweep.cache, [first, second]), "none twice"
    assert len(list((sweep.folder / folder / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.usefixtures("slurm")
def test_slurm_time_limit(begin: Callable[..., Sweep], results: Path) -> None:
    """A limit of a minute; the warning comes up to that much earlier, too."""
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=5")
    sweep = begin("limit", *SLURM, *limit)
    sweep.end()
    same_as_basic(results, "limit")
    sweep.note("slurm", "a time limit of one minute")


@pytest.mark.usefixtures("slurm")
def test_slurm_jobs_that_are_gone(begin: Callable[..., Sweep], results: Path) -> None:
    """Killed, as for memory or at the end of a scancel; the sweep goes on on another launcher."""
    sweep = begin("gone", *SLURM)
    folder = sweep.wait_for(sweep.answering)
    subprocess.run(["scancel", "--signal=KILL", job_of(sweep, folder)], check=True)
    began = time.monotonic()
    sweep.wait_for(lambda: record(sweep, folder)["status"] == "failed")
    assert time.monotonic() - began < GONE_WITHIN
    told = sweep.end(1)
    assert "ended without a result (" in told
    assert record(sweep, folder)["error"].startswith("Slurm's job ")
    again = begin("gone", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", again=True)
    again.end()
    same_as_basic(results, "gone")
    again.note("slurm, then joblib", "one job killed")


@pytest.mark.usefixtures("slurm")
def test_slurm_ctrl_c(begin: Callable[..., Sweep], results: Path) -> None:
    sweep = begin("ctrl-c", *SLURM)
    folder = sweep.wait_for(sweep.answering)
    sweep.process.send_signal(signal.SIGINT)
    sweep.end(130)
    assert subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout == ""
    assert record(sweep, folder)["error"] == "interrupted"
    again = begin("ctrl-c", *SLURM, "--detach", again=True)
    assert "python -m aim_exp.report" in again.end()
    jobs = [sweep.folder / str(job) / "result.json" for job in range(JOBS)]
    again.wait_for(
        lambda: all(
            path.exists() and json.loads(path.read_text())["status"] == "completed" for path in jobs
        ),
        detached=True,
    )
    subprocess.run([sys.executable, "-m", "aim_exp.report", sweep.folder], cwd=ROOT, check=True)
    same_as_basic(results, "ctrl-c")
    again.note("slurm, --detach", "Ctrl-C, then the same command")


def test_ray_loses_a_node(begin: Callable[..., Sweep], results: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    try:
        sweep = begin("ray", "hydra/launcher=ray", f"hydra.launcher.address={cluster.address}")
        sweep.wait_for(sweep.answering)
        cluster.remove_node(other, allow_graceful=False)
        sweep.end()
    finally:
        cluster.shutdown()
    same_as_basic(results, "ray")
    sweep.note("ray, 2 nodes", "one node killed in the middle")
