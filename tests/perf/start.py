"""The start, measured: `python -m tests.perf.start [--against DIR]`.

CPU seconds of whole processes on the embedded population, where there is next to nothing to do but
start: here and, with `--against`, with another checkout's code, in turn, several rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OMEGAS = ("null", *(f"{i / 20}" for i in range(1, 12)))
RUN, NEW, CACHED = ("run.py",), ("cache_dir=new",), ("cache_dir=cache",)


def main() -> None:
    """Train and score once, then every way in with each checkout; print medians."""
    options = _options()
    checkouts = {"here": ROOT}
    if options.against:
        checkouts["against"] = Path(options.against).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        commands = _prepare(folder, options.cache)
        taken = {(way, name): [] for way in commands for name in checkouts}
        for _ in range(options.rounds):
            for way, command in commands.items():
                for name, checkout in checkouts.items():  # in turn: a slow minute hits all alike
                    shutil.rmtree(folder / "new", ignore_errors=True)
                    if way.startswith("a merge, scored"):
                        shutil.copytree(folder / "cache", folder / "new")
                    taken[way, name].append(_cpu(checkout, command, folder))
    print(
        f"CPU s, medians of {options.rounds} rounds; {platform.machine()}, {os.cpu_count()} "
        f"processors, load {os.getloadavg()[0]:.1f}"
    )
    for way in commands:
        figures = [statistics.median(taken[way, name]) for name in checkouts]
        print(f"{way:44}" + "".join(f"{figure:8.2f}" for figure in figures))


def _prepare(folder: Path, cache: str | None) -> dict[str, tuple[str, ...]]:
    """What is cached, twelve runs to report, and the command of each way in."""
    if cache:
        shutil.copytree(Path(cache) / "population", folder / "cache" / "population")
    _cpu(ROOT, (*RUN, "tracker=none", *CACHED), folder)
    sweep = (*RUN, "-m", f"omega={','.join(OMEGAS)}", "method=task_arithmetic", "tracker=none")
    _cpu(ROOT, (*sweep, *CACHED, "benchmarks.limit=5", "hydra.sweep.dir=sweep"), folder)
    (models,) = (folder / "cache" / "population").iterdir()
    plain = (
        *RUN, "population=custom", f"population.base={models / 'base'}", "omega=null",
        f"population.experts={{a: {models / 'code'}, b: {models / 'math'}}}", "save_model=true",
        "benchmarks=none", "method=task_arithmetic", *NEW,
    )  # fmt: skip
    job = ("-m", "tests.perf.merge", "--job", "task_arithmetic", "--out", "new", "--models")
    inputs = [str(models / name) for name in ("base", "code", "math")]
    return {
        "--help": (*RUN, "--help"),
        "a report on 12 runs": ("-m", "aim_exp.report", "sweep"),
        "plan=true, all cached": (*RUN, "plan=true", *CACHED),
        "a run, all cached": (*RUN, *CACHED),
        "a run, all cached, tracker=none": (*RUN, "tracker=none", *CACHED),
        "a merge, nothing scored": plain,
        "a merge, nothing scored, tracker=none": (*plain, "tracker=none"),
        "the same by tests.perf.merge": (*job, *inputs),
        "a merge, scored: method=dare_ties": (*RUN, "method=dare_ties", *NEW),
    }


def _cpu(checkout: Path, command: tuple[str, ...], folder: Path) -> float:
    """Seconds of the process and its children."""
    if command[0] == "run.py":
        command = (str(checkout / "run.py"), *command[1:])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="DIR", help="another checkout")
    parser.add_argument("--cache", help="where the embedded population is trained already")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
