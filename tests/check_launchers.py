"""`make check-launchers`: each launcher gives the basic one's results, however it is interrupted.

Real workers, a Slurm of one node, a Ray of two. The table at the end goes into docs/cluster.md.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from conftest import ROOT

from aim_exp.evaluate.responses import kept_responses
from aim_exp.store.leases import take

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
JOBS = "0123"
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
    """When the test's first command did."""

    def wait_for(self, what: Callable[[], Any], *, detached: bool = False) -> Any:
        """What becomes true while it runs."""
        until = time.monotonic() + 600
        while not (found := what()):
            assert time.monotonic() < until
            assert detached or self.process.poll() is None, self.end()
            time.sleep(0.02)
        return found

    @property
    def responses(self) -> dict[str, Path]:
        """By job, the folder of its merged model's responses; keys are the basic launcher's."""
        keys = {job: model(self.folder.parent / "basic" / job)["responses"] for job in JOBS}
        return {job: self.cache / "responses" / key for job, key in keys.items()}

    def answers(self, job: str) -> list[int]:
        """How many answers each process that carried out a job has kept, one after the other."""
        globs = [f"responses.*-{pid}.jsonl" for pid in processes(self.folder / job)]
        folder = self.responses[job]
        return [sum(len(f.read_text().splitlines()) for f in folder.glob(g)) for g in globs]

    def answering(self, but: Sequence[str] = ()) -> str | None:
        """A job that is in the middle of its answers."""
        for job in JOBS:
            begun = job not in but and sum(self.answers(job)) > 3
            if begun and record(self.folder / job)["status"] == "running":
                return job
        return None

    def job(self, folder: str) -> str:
        """Slurm's number of the job in a folder: of the last array handed in."""
        arrays = [path.name.split("_") for path in self.folder.glob(".submitit/[0-9]*_*")]
        return f"{max(int(array) for array, _ in arrays)}_{folder}"

    def go_on(self, folder: str) -> None:
        """Wait until the job is back in the queue, where Slurm lets it wait for two minutes."""
        job = self.job(folder)
        waits = r"JobState=PENDING(?s:.*)Restarts=1"
        self.wait_for(lambda: re.search(waits, _run("scontrol", "show", "job", job)))
        _run("scontrol", "update", f"JobId={job}", "StartTime=now")

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
            # Where pytest runs in a shell's background, the signal is ignored from birth.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        began = begun[0].began if begun else time.monotonic()
        begun.append(Sweep(folder, cache, process, began))
        return begun[-1]

    yield begin
    for sweep in begun:
        if sweep.process.poll() is None:
            sweep.process.send_signal(signal.SIGINT)
            sweep.process.wait(90)


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    jobs, lines = len(JOBS), ["| launcher | jobs | results equal | interrupted | seconds |"]
    lines.append("|---|---|---|---|---|")
    lines += [f"| {r.launcher} | {jobs} | yes | {r.interrupted} | {r.seconds:.0f} |" for r in ROWS]
    print("\n" + "\n".join(lines))


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    script = Path(__file__).parent / "slurm_node.sh"
    subprocess.run([script, "start"], check=True)
    yield
    subprocess.run([script, "stop"], check=True)


def same_as_basic(results: Path, name: str) -> None:
    for file in ("results.csv", "scores.csv", "differences.csv"):
        basic, other = (pd.read_csv(results / kind / file) for kind in ("basic", name))
        assert len(basic) >= len(JOBS)
        timed = [column for column in ("seconds",) if column in basic]
        pd.testing.assert_frame_equal(other.drop(columns=timed), basic.drop(columns=timed))


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def completed(folder: Path) -> bool:
    return (folder / "result.json").exists() and record(folder)["status"] == "completed"


def model(folder: Path) -> dict[str, str]:
    """The keys of the merged model of a run."""
    return record(folder)["models"][-1]["keys"]


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def processes(folder: Path) -> list[str]:
    """Those that carried out the task of a folder, one after the other."""
    log = folder / "output.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[3].rstrip(")") for line in lines if line.startswith("on ")]


def test_basic(begin: Callable[..., Sweep]) -> None:
    sweep = begin("basic")
    sweep.end()
    sweep.note("basic")


def test_joblib(begin: Callable[..., Sweep], results: Path) -> None:
    sweep = begin("joblib-4", "hydra/launcher=joblib", "hydra.launcher.n_jobs=4")
    sweep.end()
    same_as_basic(results, "joblib-4")
    sweep.note("joblib, 4 workers")
    spans = []
    for job in JOBS:
        for stage in record(sweep.folder / job)["stages"]:
            assert not stage["waited"], "no worker waits for another"
            if stage["name"].startswith("score ") and job == "0":
                spans.append((stage["made_at"] - stage["seconds"], stage["made_at"]))
    assert len(spans) == 4
    assert max(sum(a <= began < b for a, b in spans) for began, _ in spans) >= 2, "scored at once"


def test_joblib_ctrl_c(begin: Callable[..., Sweep], results: Path) -> None:
    workers = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    sweep = begin("joblib-ctrl-c", *workers)
    folder = sweep.wait_for(sweep.answering)
    sweep.process.send_signal(signal.SIGINT)  # it alone, as `kill` does
    told = sweep.end(130)
    assert "interrupted; what is done is kept" in told
    assert record(sweep.folder / folder)["error"] == "interrupted"
    left = subprocess.run(["pgrep", "-f", str(sweep.cache)], capture_output=True, text=True)
    assert left.stdout == "", "no process goes on"
    again = begin("joblib-ctrl-c", *workers, again=True)
    again.end()
    same_as_basic(results, "joblib-ctrl-c")
    again.note("joblib, 2 workers", "Ctrl-C, then the same command")


@pytest.mark.usefixtures("slurm")
def test_slurm_goes_on(begin: Callable[..., Sweep], results: Path) -> None:
    """After the signal that comes before the time limit; after a requeue, which kills the job."""
    sweep = begin("requeued", *SLURM)
    folders: list[str] = []
    for ask in (["scancel", "--signal=USR2"], ["scontrol", "requeue"]):
        folders.append(sweep.wait_for(partial(sweep.answering, but=folders)))
        _run(*ask, sweep.job(folders[-1]))
    for folder in folders:
        sweep.go_on(folder)
    sweep.end()
    same_as_basic(results, "requeued")
    sweep.note("slurm", "two jobs back into the queue: signal of the time limit, preemption")
    counts = {folder: sweep.answers(folder) for folder in folders}
    # On an idle machine the preempted one may be done before its grace ends.
    assert any(second > 3 for _, second in counts.values())
    for folder, (first, second) in counts.items():
        assert first > 3
        assert len(kept_responses(sweep.responses[folder])) == first + second, "none twice"
        assert len(list((sweep.folder / folder / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.usefixtures("slurm")
def test_slurm_time_limit(begin: Callable[..., Sweep], results: Path) -> None:
    """A job reaches its limit, since its model's responses are this process's until then."""
    limit = ("hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=5")
    sweep = begin("limit", *SLURM, *limit)
    lease = take(sweep.cache / "leases" / f"responses-{sweep.responses['3'].name}")
    assert lease
    sweep.wait_for(lambda: processes(sweep.folder / "3"))
    sweep.go_on("3")
    lease.release()
    sweep.end()
    same_as_basic(results, "limit")
    sweep.note("slurm", "one job at its time limit")
    assert len(processes(sweep.folder / "3")) == 2


@pytest.mark.usefixtures("slurm")
def test_slurm_jobs_that_are_gone(begin: Callable[..., Sweep], results: Path) -> None:
    """Killed, as for memory; the sweep goes on on another launcher."""
    sweep = begin("gone", *SLURM)
    folder = sweep.wait_for(sweep.answering)
    for process in psutil.process_iter(["environ"]):  # scancel would leave it 30 seconds
        place = process.info["environ"] or {}
        own = (place.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
        if "_".join(filter(None, own)) == sweep.job(folder):
            process.kill()
    began = time.monotonic()
    sweep.wait_for(lambda: record(sweep.folder / folder)["status"] == "failed")
    assert time.monotonic() - began < GONE_WITHIN
    told = sweep.end(1)
    assert "ended without a result (" in told
    assert record(sweep.folder / folder)["error"].startswith("Slurm's job ")
    again = begin("gone", "hydra/launcher=slurm_local", "hydra.launcher.n_jobs=2", again=True)
    again.end()
    same_as_basic(results, "gone")
    again.note("slurm, then slurm_local", "one job killed")


@pytest.mark.usefixtures("slurm")
def test_slurm_ctrl_c(begin: Callable[..., Sweep], results: Path) -> None:
    sweep = begin("ctrl-c", *SLURM)
    folder = sweep.wait_for(sweep.answering)
    sweep.process.send_signal(signal.SIGINT)
    sweep.end(130)
    assert _run("squeue", "-h") == ""
    assert record(sweep.folder / folder)["error"] == "interrupted"
    again = begin("ctrl-c", *SLURM, "--detach", again=True)
    assert "python -m aim_exp.report" in again.end()
    records = [sweep.folder / job for job in JOBS]
    again.wait_for(lambda: all(map(completed, records)), detached=True)
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
    assert any(len(processes(sweep.folder / job)) == 2 for job in JOBS), "begun again"
    sweep.note("ray, 2 nodes", "one node killed in the middle")
