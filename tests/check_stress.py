"""`make check-stress`: whatever is killed, the same command goes on, and nothing is left over.

Commands on a population of two layers. The lines at the end go into docs/reliability.md.
"""

import fcntl
import gzip
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest
from command_line import run_here
from trials import KILLED, Ended, Kill, Trial

from aim_exp import app
from aim_exp.evaluate.code.execution import runner
from aim_exp.report.front import FOLDER as FRONTS
from aim_exp.store import entries, leases
from aim_exp.store.__main__ import main as store_command
from aim_exp.store.run_record import SHARED_FOLDER
from aim_exp.store.sweeps import STAGES_FOLDER

SHARE = float(os.environ.get("AIM_EXP_STRESS", "1"))
"""Of the trials and jobs: less for a look."""
POPULATION = "population._target_=small_population.Small"
FEW = ("benchmarks.limit=10", "calibration.n_samples=4", "tracker=none")
COMMON = (
    POPULATION,
    *FEW,
    *(f"~benchmarks.tasks.tiny_{task}" for task in ("mbpp", "math", "ifeval")),
    "save_model=true",
)
JOB = (*COMMON, "omega=0.4")
SWEEP = ("-m", *COMMON, "omega=null,0.4")
COMMANDS = {
    "job": JOB,
    "sweep": SWEEP,
    "joblib": (*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
}
BATCH = 16
"""Answers that are kept at once, at most."""
JOBS = max(20, round(500 * SHARE))
PROCESSES = 8
PASSING = ("/responses.", STAGES_FOLDER, f"{SHARED_FOLDER}/{FRONTS}")
"""In paths: answers of a process, what launchers say of stages, what a report at that time drew."""


def to(name: str) -> tuple[str, ...]:
    return (f"hydra.run.dir={name}", f"hydra.sweep.dir={name}", "cache_dir=cache")


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Everything that a command imports, so that its forks need not."""
    os.environ["PYTHONFAULTHANDLER"] = "0"  # needs a standard error with a descriptor
    done = run_here(*JOB, *to("run"), cwd=tmp_path_factory.mktemp("imports"))
    assert done.returncode == 0, done.stderr
    runner().close()
    runner.cache_clear()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Trial, Ended]]:
    """By name, each command as nothing disturbed it."""

    @cache
    def done(name: str) -> tuple[Trial, Ended]:
        trial = Trial(tmp_path_factory.mktemp(name))
        ended = trial.run(*COMMANDS[name], *to("last"))
        assert ended.status == 0, trial.log
        return trial, ended

    return done


def results(run: Path) -> dict[str, Any]:
    """All that counts in the folder of a run or of a sweep."""
    found: dict[str, Any] = {}
    for file in sorted(run.rglob("result.json")):
        record, name = json.loads(file.read_text()), str(file.parent.relative_to(run))
        assert record["status"] == "completed", record["error"]
        found[name] = record["models"], record["dose"], record["warnings"], record["hypervolume"]
        for model in record["models"]:
            for benchmark, score in model["scores"].items():
                items = gzip.decompress((file.parent / score["items"]).read_bytes())
                found[f"{name} {model['name']} {benchmark}"] = items
        weights = file.parent / "model" / "model.safetensors"
        found[f"{name} weights"] = weights.read_bytes()
    for name in ("scores.csv", "differences.csv"):
        if (run / name).exists():
            found[name] = (run / name).read_text()
    return found


def names(folder: Path) -> set[str]:
    """Of all that lies below it, but for what differs with the time and the process."""
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {path for path in paths if not any(part in path for part in PASSING)}


def made(cache: Path) -> dict[str, float]:
    """When each entry was made."""
    entries = cache.glob("*/*/made.json")
    return {
        str(path.parent): json.loads(path.read_text())["at"]
        for path in entries
        if path.parts[-3] not in ("partial", "begun")
    }


def answers(cache: Path) -> Counter[str]:
    """How often each request was answered."""
    return Counter(
        f"{file.parent.name} {json.loads(line)[0]}"
        for file in cache.glob("responses/*/responses.*.jsonl")
        for line in file.read_text().splitlines()
    )


def check(trial: Trial, command: str, whole: Trial) -> None:
    """After a kill: the same command gives the same, does nothing twice and leaves nothing."""
    cache = trial.folder / "cache"
    before = made(cache)
    again = trial.run(*COMMANDS[command], *to("last"))
    assert again.status == 0, trial.log
    assert results(trial.folder / "last") == results(whole.folder / "last")
    after = made(cache)
    assert {entry: after.get(entry) for entry in before} == before, "what was made stays"
    twice = [request for request, count in answers(cache).items() if count > 1]
    assert len(twice) <= BATCH, "what was answered stays"
    assert names(cache) == names(whole.folder / "cache")
    assert names(trial.folder / "last") == names(whole.folder / "last")
    assert names(trial.folder / "first") <= names(whole.folder / "last")
    assert names(trial.folder / "tmp") == set()


def kills(ended: Ended, count: int, of: str, worker: bool) -> list[Kill]:
    """One at random in each of `count` equal shares of what the command does."""
    rng = Random(f"{count} {of} {worker}")
    begin, end = (ended.begun, ended.seconds) if of == "seconds" else (0, ended.changes)
    points = [begin + (n + rng.random()) / count * (end - begin) for n in range(count)]
    if of == "changes":
        return [Kill(changes=int(point) + 1, worker=worker) for point in points]
    return [Kill(seconds=point, worker=worker) for point in points]


def test_many_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last jobs take the time of the first and leave no memory; the check 10 ms a job."""
    trial, run_job = Trial(tmp_path), app.run_job
    log, page = tmp_path / "jobs", tmp_path / "sweep" / "report.md"

    def note() -> None:
        size = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        reported = page.stat().st_mtime if page.exists() else 0
        with log.open("a") as file:
            file.write(f"{time.process_time()} {size / 2**20} {reported}\n")

    def noted(job: Any) -> Any:
        if job.number == 0:
            note()
        try:
            return run_job(job)
        finally:
            note()

    monkeypatch.setattr(app, "run_job", noted)
    seeds = f"seed=range({JOBS // 4})"
    few = ("benchmarks=lm_eval", "benchmarks.tasks=[aim_tiny_mmlu]", "benchmarks.task_folder=tiny")
    sweep = ("-m", POPULATION, *few, *FEW, seeds, "method=dare_linear,dare_ties", "omega=null,0.4")
    ended = trial.run(*sweep, *to("sweep"))
    assert ended.status == 0, trial.log
    rows = [[float(value) for value in line.split()] for line in log.read_text().splitlines()]
    took, part = [after[0] - before[0] for before, after in pairwise(rows)], JOBS // 4
    first, last = median(took[1:part]), median(took[-part:])
    # What a report takes grows with the jobs, and comes sooner or later by the machine's speed.
    left = sum(b[1] - a[1] for a, b in pairwise(rows[part:]) if a[2] == b[2])
    before, behind = rows[0][0], ended.seconds - rows[-1][0]
    most = max(row[1] for row in rows[:part]), max(row[1] for row in rows[-part:])
    print(
        f"{4 * part} jobs: before the first {before:.1f} CPU s, a job {first:.3f} in the first "
        f"quarter and {last:.3f} in the last, behind the last {behind:.1f}; memory of the process "
        f"{most[0]:.0f} MiB in the first quarter and {most[1]:.0f} in the last, {left:.0f} left by "
        "the jobs behind the first quarter"
    )
    assert before < 2 + 0.01 * 4 * part
    assert last < 1.2 * first
    assert left < 20


def in_hand(trial: Trial) -> str:
    """What a killed command was at: the stages whose leases it left, or what went on beside."""
    leases = trial.folder.glob("cache/leases/[!.]*/*")
    stages = {path.parent.name.partition("-")[0] for path in leases}
    records = [json.loads(path.read_text()) for path in trial.folder.glob("*/**/result.json")]
    if stages - {"processes"}:
        return " and ".join(sorted(stages - {"processes"}))
    if any(trial.folder.glob("*/**/.*-*/model.safetensors")):
        return "saving"
    done = records and all(record["status"] == "completed" for record in records)
    return "reports" if done else "between stages"


@pytest.mark.parametrize(
    ("command", "of", "worker", "count"),
    [
        ("job", "changes", False, 14),
        ("job", "seconds", False, 12),
        ("sweep", "changes", False, 8),
        ("sweep", "seconds", False, 6),
        ("joblib", "seconds", False, 5),
        ("joblib", "seconds", True, 6),
    ],
)
def test_after_a_kill_the_same_command_goes_on(
    command: str,
    of: str,
    worker: bool,
    count: int,
    undisturbed: Callable[[str], tuple[Trial, Ended]],
    tmp_path: Path,
) -> None:
    """Killed at changes of files and in between; by turns it goes on in the same folder."""
    whole, ended = undisturbed(command)
    count, problems, stages = max(1, round(count * SHARE)), [], Counter()
    for number, kill in enumerate(kills(ended, count, of, worker)):
        trial = Trial(tmp_path / str(number))
        line = (*COMMANDS[command], *to("first" if number % 2 else "last"))
        while not (killed := trial.run(*line, kill=kill)).killed:  # it was done before
            shutil.rmtree(trial.folder)
            kill = kill.earlier
        stages[in_hand(trial)] += 1
        try:
            assert killed.status in ((0, 1) if worker else (KILLED,)), trial.log  # 0: without task
            check(trial, command, whole)
        except AssertionError as error:
            problems.append(f"{kill}: {error}")
        else:
            shutil.rmtree(trial.folder)
    what = f"{command}, {'a worker of it' if worker else 'the command itself'}, by {of}"
    at = ", ".join(f"{stage} {times}" for stage, times in stages.items())
    print(f"killed: {what}: {count} (at {at}), fell: {len(problems)}")
    assert not problems, "\n\n".join(problems)


@pytest.mark.parametrize("locks", [True, False])
def test_side_by_side(locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes to a job, all begun at once: each entry is made once where locks work.

    Where they do not, there are no file locks, and every process takes some of the living holders
    that it waits for to be dead.
    """
    omegas = [f"omega={number / 10}" for number in range(2, 10, 2)]
    alone, crowd = Trial(tmp_path / "alone"), Trial(tmp_path / "crowd")
    for number, omega in enumerate(omegas):
        assert alone.run(*COMMON, omega, *to(f"run-{number}")).status == 0, alone.log
    seal, is_dead = entries.seal, leases.Holder.is_dead
    made_by = crowd.folder / "made"

    def noted(folder: Path, name: str) -> None:
        seal(folder, name)
        with made_by.open("a") as file:
            file.write(f"{name}\n")

    def no_locks(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    def mistaken() -> None:
        rng, left = Random(os.getpid()), 3

        def wrong(holder: leases.Holder) -> bool:
            nonlocal left
            if left and rng.random() < 0.05:
                left -= 1
                return True
            return is_dead.__get__(holder)

        monkeypatch.setattr(leases.Holder, "is_dead", property(wrong))

    monkeypatch.setattr(entries, "seal", noted)
    if not locks:
        for name in ("flock", "lockf"):
            monkeypatch.setattr(fcntl, name, no_locks)
    begun = [
        crowd.start(
            *COMMON, omegas[number % 4], *to(f"run-{number}"), before=None if locks else mistaken
        )
        for number in range(PROCESSES)
    ]
    ends = crowd.wait(*begun)
    assert [ended.status for ended in ends] == [0] * PROCESSES, crowd.log
    for number in range(PROCESSES):
        mine, its = crowd.folder / f"run-{number}", alone.folder / f"run-{number % 4}"
        assert results(mine) == results(its)
    times = Counter(made_by.read_text().splitlines())
    expected = names(alone.folder / "cache")
    assert names(crowd.folder / "cache") == expected
    assert store_command(["verify", f"--cache-dir={crowd.folder / 'cache'}"]) == 0
    again = sum(times.values()) - len(times)
    asked = sum(answers(crowd.folder / "cache").values())
    print(
        f"side by side, {'with' if locks else 'without'} locks: {len(times)} entries, {again} of "
        f"them made again, {asked} answers to {len(answers(crowd.folder / 'cache'))} requests"
    )
    if locks:
        assert again == 0
        assert asked == len(answers(crowd.folder / "cache"))
