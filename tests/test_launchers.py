"""Launchers: the same results from several processes; shared stages; how tasks end."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from built_runs import built
from conftest import Cli
from hydra.core.singleton import Singleton
from run_records import model_of, result
from worker_tasks import devices, die, last

from aim_exp.errors import AimError
from aim_exp.launchers.engines import Engine, Ticket
from aim_exp.launchers.stages import levels
from aim_exp.launchers.workers import Workers, gpus, worker_environments

FAST = ("-m", "method=ties", "tracker=none")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
SWEEP = ("hydra/launcher=joblib", "hydra.launcher.engine=test_launchers.Here", "hydra.sweep.dir=s")
PART = (
    "benchmarks=lm_eval",
    "benchmarks.tasks=[aim_tiny_mmlu]",
    "benchmarks.task_folder=tiny",
    "benchmarks.limit=2",
)


class Here(Engine):
    """Tasks in this process, which has imported everything."""

    def __init__(self, sweep: Path, **settings: Any) -> None:
        super().__init__(sweep)
        self.slots = 1

    def start(self, ticket: Ticket) -> None:
        ticket.handle, instances = True, Singleton._instances
        ticket.returned = ticket.task()
        Singleton._instances = instances  # a worker's are not those of the command

    def look(self, tickets: Sequence[Ticket]) -> None:
        """They ended as they began."""

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """There is nothing to end."""


class Interrupted(Here):
    """Ctrl-C comes behind its second task."""

    cancelled: ClassVar[list[str]] = []

    def start(self, ticket: Ticket) -> None:
        if ticket.task.number == 2:
            raise KeyboardInterrupt
        super().start(ticket)

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        self.cancelled[:] = [ticket.task.name for ticket in tickets]


@pytest.mark.slow
def test_workers_give_what_one_process_gives(cli: Cli, tmp_path: Path, tiny_cache: Path) -> None:
    cache = tmp_path / "cache"  # nothing in it is scored
    shutil.copytree(tiny_cache / "population", cache / "population")
    sweep = (*FAST, "omega=null,0.4", *PART)
    done = cli(*sweep, *JOBLIB, "hydra.sweep.dir=joblib", cache=cache)
    assert done.returncode == 0, done.stderr
    for line in ("4 of 5 shared stages, 0 of 2 jobs done", "scores of base", "2 of 2 jobs done"):
        assert line in done.stdout
    titles = [line for line in done.stdout.splitlines() if " of 2: " in line]
    assert sorted(titles)[0] == "1 of 2: ties omega=null"
    assert len(titles) == 2

    basic = cli(*sweep, "hydra.sweep.dir=basic")
    assert basic.returncode == 0
    tail = "2 jobs, 2 scored"
    ends = [each.stdout.partition(tail)[2] for each in (done, basic)]
    assert ends[0].replace("joblib", "basic") == ends[1]
    for name in ("results.csv", "scores.csv", "differences.csv"):
        here, there = (pd.read_csv(tmp_path / folder / name) for folder in ("basic", "joblib"))
        assert len(here) >= 2
        timed = [column for column in ("seconds",) if column in here]
        pd.testing.assert_frame_equal(there.drop(columns=timed), here.drop(columns=timed))
    for number in "01":
        here, there = (result(tmp_path / folder / number) for folder in ("basic", "joblib"))
        assert model_of(here)["keys"] == model_of(there)["keys"]
        made = [each for each in there["stages"] if each["name"].startswith(("score", "calib"))]
        assert len(made) in (4, 5)
        for stage in made:
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
    mean = ("aim.saliency=mean", "benchmarks=none")
    overrides = [(*mean, f"population.merge=[code,{other}]") for other in ("math", "instruct")]
    measured = levels([(each, built(tmp_path, *each)) for each in overrides])
    counts = [sum("activations" in stage.what for stage in level) for level in measured]
    assert counts == [0, 1, 1], "base and code are measured once"


@pytest.mark.parametrize("fail_fast", [False, True])
def test_a_failed_shared_stage_fails_those_in_need(
    cli: Cli, tmp_path: Path, fail_fast: bool
) -> None:
    (tmp_path / "texts.txt").write_text("short\n\nshort, too\n")
    texts = ("calibration=text", "calibration.path=texts.txt", "calibration.long_texts=skip")
    sweep = (*FAST, "omega=null,0.4,0.2", "benchmarks=none", *SWEEP)
    done = cli(*sweep, *texts, "calibration.block_size=1", f"fail_fast={fail_fast}")
    assert done.returncode == 1
    (left,) = (tmp_path / "s" / "shared" / "stages").glob("*/failed")
    words = left.read_text()
    assert words.startswith("calibration.block_size=1: ")
    lines = done.stderr.splitlines()
    assert f"error: {words}" in lines, "behind the stage's title"
    if fail_fast:
        assert (tmp_path / "s" / "stop").read_text() == f"{words}\n"
        assert not list((tmp_path / "s").glob("[0-9]/result.json")), "none has begun"
    else:
        assert f"error: 2 of 3: {words}" in lines
        records = [result(tmp_path / "s" / number) for number in "012"]
        assert [record["status"] for record in records] == ["completed", "failed", "failed"]
        assert [record["error"] for record in records] == [None, words, words]


def test_ctrl_c_leaves_word(cli: Cli, tmp_path: Path) -> None:
    """In the second batch, of a sweeper that asks for one after the other."""
    sweep = (*FAST, "omega=null,1", "repeat=0,1", "benchmarks=none", *SWEEP)
    batches = "hydra.sweeper.max_batch_size=2"
    done = cli(*sweep, batches, "hydra.launcher.engine=test_launchers.Interrupted")
    assert done.returncode == 130
    assert done.stderr.splitlines() == [
        "error: interrupted; what is done is kept: the same command goes on from there"
    ]
    assert len(Interrupted.cancelled) == 2, "those that had not ended"
    assert len(list((tmp_path / "s").glob("[0-9]/result.json"))) == 2
    rows = pd.read_csv(tmp_path / "s" / "results.csv")
    assert [*rows["status"]] == ["completed", "completed", "not run", "not run"]


def test_a_library_that_is_missing_names_its_extra(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for launcher, module, extra in (
        ("slurm", "submitit", "slurm"),
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
    engine = Workers(Path(), n_jobs=None, gpus_per_job=1)
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
    engine = Workers(Path(), n_jobs=2, gpus_per_job=0)
    tickets = carry_out(engine, devices, die, devices, devices)
    engine.close()
    assert [ticket.lost is None for ticket in tickets] == [True, False, True, True]
    assert "its process ended: " in (tickets[1].lost or "")


def test_a_process_that_dies_without_a_task_takes_none_along() -> None:
    engine = Workers(Path(), n_jobs=1, gpus_per_job=0)
    (before,) = carry_out(engine, os.getpid)
    assert isinstance(before.returned, int)
    os.kill(before.returned, signal.SIGKILL)
    (executor,) = engine._executors.values()
    while not executor._flags.broken:
        time.sleep(0.02)
    (behind,) = carry_out(engine, os.getpid)
    engine.close()
    assert behind.lost is None
    assert behind.returned != before.returned


def test_ctrl_c_reaches_every_worker(tmp_path: Path) -> None:
    engine = Workers(Path(), n_jobs=2, gpus_per_job=0)
    begun = [tmp_path / str(number) for number in range(3)]
    tickets: list[Ticket] = [Ticket(partial(last, file)) for file in begun]  # type: ignore[arg-type]
    engine.poll(tickets)
    while not all(file.exists() for file in begun[:2]):
        time.sleep(0.02)
    engine.cancel(tickets)
    assert not begun[2].exists()
    for ticket in tickets[:2]:
        assert isinstance(ticket.handle[1].exception(), KeyboardInterrupt)
