"""A sweep, measured: `python -m tests.perf.sweep`.

A real `run.py -m` of methods and omegas on the embedded population, in one process: what each
job takes beyond its own merging and scoring, and whether anything was done twice or written
that need not be. Beside it the plain loop of the paper's scripts on the same models: load
base and merged model, measure, relax and save a checkpoint for every omega, and load it again
to score it. Both score with the same code; in turn, several rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.perf.jobs import (
    CALIBRATION,
    MERGING,
    NONE,
    PARTS,
    REST,
    SAVING,
    SCORING,
    Clock,
    Measured,
    Seconds,
    files_in,
    sizes,
)  # fmt: skip

METHODS = ("ties", "dare_ties", "task_arithmetic")
OMEGAS = ("null", "0.2", "0.4", "0.6")
ROOT = Path(__file__).parents[2]


def main() -> None:
    """Train the population once, then both ways in turn; print medians, and assert the counts."""
    options = _options()
    if options.way:
        measured = _WAYS[options.way](options)
        print(json.dumps(asdict(measured)))
        return
    folder = Path(options.folder or tempfile.gettempdir()) / "aim-perf-sweep"
    cache = _prepare(folder, options)
    rounds: dict[str, list[Measured]] = {way: [] for way in _WAYS}
    for _ in range(options.rounds):
        for way, runs in rounds.items():  # in turn: a slow minute of the machine hits both
            runs.append(_measure(way, cache, folder / way, options))
    _check(rounds, options)
    _print_tables(rounds, options)
    if options.json:
        found = {way: [asdict(run) for run in runs] for way, runs in rounds.items()}
        Path(options.json).write_text(json.dumps(found))


def _prepare(folder: Path, options: argparse.Namespace) -> Path:
    """A cache with the population, trained and scored; no other work is shared by the rounds."""
    cache = folder / "prepared"
    command = [sys.executable, "run.py", "method=none", "tracker=none", *_shared_settings(options)]
    command += [f"cache_dir={cache}", f"hydra.run.dir={folder / 'preparation'}"]
    subprocess.run(command, cwd=ROOT, env=_environment(), check=True, stdout=subprocess.DEVNULL)
    return cache


def _measure(way: str, prepared: Path, out: Path, options: argparse.Namespace) -> Measured:
    """One way in a process of its own, with a cache of its own."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(prepared, out / "cache")
    command = [sys.executable, "-m", "tests.perf.sweep", *sys.argv[1:], "--way", way]
    command += ["--out", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    jobs = [{part: Seconds(**taken) for part, taken in job.items()} for job in found["jobs"]]
    return Measured(**{**found, "jobs": jobs, "process": Seconds(**found["process"])})


def _sweep(options: argparse.Namespace) -> Measured:
    """The command as people type it, with a clock at its parts."""
    from hydra.plugins.sweeper import Sweeper

    from aim_exp import app
    from aim_exp.checkpoint.live import LiveModel
    from aim_exp.cli.callbacks import Launch
    from aim_exp.evaluate.harness import Harness
    from aim_exp.run import pipeline

    clock, out = Clock(), Path(options.out)
    check = "check of the configurations"
    clock.taken[check] = NONE
    clock.watch(Sweeper, "validate_batch_is_legal", check)
    clock.watch(LiveModel, "__init__", SAVING)
    clock.watch(pipeline, "stream_merge", MERGING)
    clock.watch(pipeline, "measure_activations", CALIBRATION)
    clock.watch(Harness, "evaluate", SCORING)
    end_of_job = Launch.on_job_end

    def on_job_end(*args: Any, **settings: Any) -> None:
        end_of_job(*args, **settings)
        clock.end_job()

    Launch.on_job_end = on_job_end
    before = files_in(out)
    sweep = [f"method={','.join(options.methods)}", f"omega={','.join(options.omegas)}"]
    sys.argv = ["run.py", "-m", *sweep, *_shared_settings(options), f"tracker={options.tracker}"]
    sys.argv += [f"cache_dir={out / 'cache'}", f"hydra.sweep.dir={out / 'sweep'}"]
    try:
        app.main()
    except SystemExit as end:
        if end.code:
            raise
    own = Seconds.now()
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # its process ends, and its seconds can be read
    service = Seconds.now().cpu - own.cpu
    records = [_record(out / "sweep" / str(job)) for job in range(len(clock.jobs))]
    return Measured(
        jobs=clock.jobs,
        counts={
            "calibrations": clock.times[CALIBRATION],
            "merges": clock.times[MERGING],
            "models built": clock.times[SAVING],
        },
        written=sizes({path: size for path, size in files_in(out).items() if path not in before}),
        scores=[record["scores"] for record in records],
        process=Seconds.now(),
        shared=(service + clock.taken[check].cpu) / len(clock.jobs),
    )


def _record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def _check(rounds: dict[str, list[Measured]], options: argparse.Namespace) -> None:
    """One calibration, one merge and one result per job, one model, no weights on disk."""
    jobs = len(options.methods) * len(options.omegas)
    relaxes = any(omega != "null" for omega in options.omegas)
    for run in rounds["sweep"]:
        expected = {"calibrations": int(relaxes), "merges": jobs, "models built": 1}
        assert run.counts == expected, f"{run.counts}, expected {expected}"
        assert "weights" not in run.written, f"weights were written: {run.written}"
        assert len(run.jobs) == len(run.scores) == jobs, f"{len(run.jobs)} jobs of {jobs}"


def _print_tables(rounds: dict[str, list[Measured]], options: argparse.Namespace) -> None:
    ours, plain = rounds["sweep"], rounds["plain loop"]
    jobs = len(ours[0].jobs)
    print(
        f"{jobs} jobs ({len(options.methods)} methods x {len(options.omegas)} omegas), embedded "
        f"population, one thread; {platform.machine()}, {os.cpu_count()} processors, "
        f"load {os.getloadavg()[0]:.1f}; {options.rounds} rounds"
    )
    print(f"\n{'a job of the sweep (not its first)':42}{'CPU s':>8}{'spread':>14}{'wall s':>9}")
    later = [job for run in ours for job in run.jobs[1:]]
    for part in PARTS:
        _print_row(part, [job[part].cpu for job in later], [job[part].wall for job in later])
    _print_row("checking configurations, W&B's process", [run.shared for run in ours])
    overhead = [statistics.mean(j[REST].cpu for j in run.jobs[1:]) + run.shared for run in ours]
    _print_row("overhead: the last two, mean of the jobs", overhead)
    counts = ", ".join(f"{number} {what}" for what, number in ours[0].counts.items())
    print(f"in all: {counts}; written: {_written(ours[0])}")

    print(f"\n{'all jobs':42}{'sweep':>8}{'plain loop':>14}{'ratio':>9}   CPU s, medians")
    for name, parts in [*((part, [part]) for part in PARTS), ("all but the rest", PARTS[:-1])]:
        _print_pair(name, *([_total(run, parts) for run in way] for way in (ours, plain)))
    _print_pair("process", *([run.process.cpu for run in way] for way in (ours, plain)))
    print(f"plain loop writes: {_written(plain[0])}")
    same = sum(a == b for run in zip(ours, plain, strict=True) for a, b in _score_pairs(*run))
    total = sum(1 for run in zip(ours, plain, strict=True) for _ in _score_pairs(*run))
    print(f"the same score on {same} of {total} benchmarks of all jobs")


def _total(run: Measured, parts: Sequence[str]) -> float:
    """CPU seconds in all jobs."""
    return sum(job[part].cpu for job in run.jobs for part in parts)


def _score_pairs(ours: Measured, plain: Measured) -> Iterator[tuple[float, float]]:
    for one, other in zip(ours.scores, plain.scores, strict=True):
        yield from ((one[name], other[name]) for name in one)


def _written(run: Measured) -> str:
    return ", ".join(
        f"{kind} {files} files {size / 2**20:.1f} MiB"
        for kind, (files, size) in run.written.items()
    )


def _print_row(what: str, cpu: Sequence[float], wall: Sequence[float] = ()) -> None:
    spread = f"{min(cpu):.2f}-{max(cpu):.2f}"
    seconds = f"{statistics.median(wall):9.2f}" if wall else ""
    print(f"{what:42}{statistics.median(cpu):8.3f}{spread:>14}{seconds}")


def _print_pair(what: str, ours: Sequence[float], plain: Sequence[float]) -> None:
    one, other = statistics.median(ours), statistics.median(plain)
    ratio = f"{other / one:9.2f}" if one > 0.005 else f"{'-':>9}"
    print(f"{what:42}{one:8.2f}{other:14.2f}{ratio}")


def _shared_settings(options: argparse.Namespace) -> list[str]:
    return [] if options.limit is None else [f"benchmarks.limit={options.limit}"]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--omegas", nargs="+", default=OMEGAS)
    parser.add_argument("--limit", type=int, help="items per benchmark (default: all)")
    parser.add_argument("--tracker", default="wandb", choices=("wandb", "none"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the population is kept (default: temporary)")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    return parser.parse_args()


def _plain_loop(options: argparse.Namespace) -> Measured:
    from tests.perf.plain_loop import plain_loop

    settings = _shared_settings(options)
    return plain_loop(options.methods, options.omegas, settings, Path(options.out))


_WAYS = {"sweep": _sweep, "plain loop": _plain_loop}


if __name__ == "__main__":
    main()
