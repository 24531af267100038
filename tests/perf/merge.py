"""Merging, measured: `python -m tests.perf.merge`.

Ours, a floor (numpy: base + sum of deltas in float32, streamed in chunks of 1 Mi elements)
and, with `--mergekit PATH/python`, mergekit, on the same files, in turn, several rounds. A job
`run:METHOD` is `run.py`, which scores nothing and has nothing cached.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.perf.process import peak_memory

if TYPE_CHECKING:
    import numpy as np

    from aim_exp.checkpoint.reader import Checkpoint

OURS = ("linear", "task_arithmetic", "task_arithmetic+aim", "ties", "dare_linear", "dare_ties")
"""A method; `+aim` relaxes with omega 0.4, `@2` takes two threads. `dare_linear_l1` and `widen`
are known too."""
FLOOR = "floor"
FLOOR_CHUNK = 1 << 20
DENSITY = 0.2
MERGEKIT = {
    "linear": {"merge_method": "linear"},
    "task_arithmetic": {"merge_method": "task_arithmetic"},
    "ties": {"merge_method": "ties"},
    "dare_linear": {"merge_method": "dare_linear"},
    "dare_ties": {"merge_method": "dare_ties"},
}


@dataclass(frozen=True)
class Measured:
    """One run. CPU and wall seconds without and with imports; MiB of anonymous memory."""

    name: str
    cpu: float
    wall: float
    process_cpu: float
    process_wall: float
    peak_mib: float


def main() -> None:
    """Make the models, run every job in turn, print medians and ratios to the floor."""
    options = _options()
    if options.job:
        _run_job(options.job, [Path(p) for p in options.models], Path(options.out))
        return
    from tests.perf.models import make_family, make_many

    parent = Path(options.folder or tempfile.gettempdir())
    if options.many:
        folder = parent / f"aim-perf-many-{options.many}"
        models = make_many(folder, options.many, options.experts)
    else:
        folder = parent / f"aim-perf-{options.parameters}"
        models = make_family(folder, options.parameters, options.experts)
    jobs = [FLOOR, *(options.methods or OURS)]
    if options.mergekit:
        names = {job.removeprefix("run:") for job in jobs}
        jobs += [f"mergekit:{name}" for name in MERGEKIT if name in names]
    rounds: dict[str, list[Measured]] = {job: [] for job in jobs}
    for _ in range(options.rounds):
        for job in jobs:  # in turn, so that a slow minute of the machine hits all alike
            rounds[job].append(_measure(job, models, folder / "out", options.mergekit))
    _print_table(rounds, options)
    if options.json:
        text = json.dumps({job: [asdict(run) for run in runs] for job, runs in rounds.items()})
        Path(options.json).write_text(text)


def _measure(job: str, models: list[Path], out: Path, mergekit: str | None) -> Measured:
    """Run a job in a process of its own; mergekit tells no figures without its imports."""
    shutil.rmtree(out, ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    kind, _, method = job.rpartition(":")
    if kind == "mergekit":
        assert mergekit
        command = _mergekit_command(method, models, out, mergekit)
    elif kind == "run":
        command = _run_command(method, models, out)
    else:
        paths = [str(model) for model in models]
        command = [sys.executable, "-m", "tests.perf.merge", "--job", job, "--out", str(out)]
        command += ["--models", *paths]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if kind:
        return Measured(job, float("nan"), float("nan"), cpu, wall, float("nan"))
    inner = json.loads(done.stdout.splitlines()[-1])
    return Measured(job, inner["cpu"], inner["wall"], cpu, wall, inner["peak_mib"])


def _run_job(job: str, models: list[Path], out: Path) -> None:
    work = _floor(models, out) if job == FLOOR else _ours(job, models, out)
    with peak_memory() as peak:
        cpu, wall = time.process_time(), time.monotonic()
        work()
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    print(json.dumps({"cpu": cpu, "wall": wall, "peak_mib": peak[0]}))


def _ours(job: str, models: list[Path], out: Path) -> Callable[[], object]:
    import torch

    from aim_exp import merge
    from aim_exp.aim.pull import Relaxation
    from aim_exp.aim.settings import AimSettings
    from aim_exp.checkpoint.reader import Checkpoint
    from aim_exp.checkpoint.writer import CheckpointWriter
    from aim_exp.merge import sparsify  # noqa: F401 (an import is no part of the work)
    from aim_exp.merge.stream import stream_merge

    torch.set_num_threads(1)
    dare = {"weight": 1.0, "scale": 1.0, "density": DENSITY, "rescale": "inv_density"}
    methods = {
        "linear": lambda: merge.Linear(weight=1.0),
        "task_arithmetic": lambda: merge.TaskArithmetic(weight=1.0, scale=1.0),
        "ties": lambda: merge.Ties(
            weight=1.0, scale=1.0, density=DENSITY, normalize=True, trim_scope="tensor"
        ),
        "dare_linear": lambda: merge.DareLinear(**dare),
        "dare_ties": lambda: merge.DareTies(normalize=False, **dare),
        "dare_linear_l1": lambda: merge.DareLinear(**{**dare, "rescale": "l1"}),
        "widen": lambda: merge.Widen(
            above_average_value_ratio=1.0, score_calibration_value=1.0, compute_dtype="float32"
        ),
    }
    name, _, threads = job.partition("@")
    method = methods[name.removesuffix("+aim")]()
    base, *experts = (Checkpoint(model, model.name) for model in models)
    relax = None
    if name.endswith("+aim"):
        from aim_exp.aim.saliency import Saliency

        widths = {name: info.shape[-1] for name, info in base.tensors.items()}
        channels = {n: torch.rand(w) for n, w in widths.items() if "embed" not in n}
        saliency = Saliency(channels, dict.fromkeys(channels, -1), tied={}, tokens=1)
        settings = AimSettings(
            statistic="mean_abs",
            column_norm=False,
            saliency="base",
            normalise="max",
            scaling="identity",
            dose=None,
            exclude=(),
            tied_head="keep",
            omega_by=None,
        )
        relax = Relaxation(saliency, 0.4, settings, 0)

    def work() -> None:
        with CheckpointWriter(out, base, None) as writer:
            count = int(threads or 1)
            stream_merge(base, experts, method, writer, seed=0, relax=relax, threads=count)

    return work


def _floor(models: list[Path], out: Path) -> Callable[[], object]:
    """As little as one can do: map, widen, add, round, write; in place, and nothing checked."""
    import numpy as np
    import torch  # noqa: F401 (the reader's: an import is no part of the work)

    from aim_exp.checkpoint.reader import Checkpoint

    checkpoints = [Checkpoint(model, model.name) for model in models]
    buffers = np.empty((3, FLOOR_CHUNK), np.uint32)
    rounded_buffer = np.empty(FLOOR_CHUNK, np.uint16)

    def widen(raw: np.ndarray, out: np.ndarray) -> None:
        np.copyto(out, raw)
        np.left_shift(out, 16, out=out)

    def work() -> None:
        out.mkdir()
        with (out / "floor.bin").open("wb", buffering=0) as file:
            for raw in zip(*map(_raw_chunks, checkpoints), strict=True):
                base, total, spare = buffers[:, : raw[0].size]
                rounded = rounded_buffer[: raw[0].size]
                widen(raw[0], base)
                np.copyto(total, base)
                for part in raw[1:]:
                    widen(part, spare)
                    delta, sums = spare.view(np.float32), total.view(np.float32)
                    np.subtract(delta, base.view(np.float32), out=delta)
                    np.add(sums, delta, out=sums)
                np.right_shift(total, 16, out=spare)  # round to nearest, ties to even
                np.bitwise_and(spare, 1, out=spare)
                np.add(spare, 0x7FFF, out=spare)
                np.add(total, spare, out=total)
                np.right_shift(total, 16, out=total)
                np.copyto(rounded, total, casting="unsafe")
                file.write(rounded.data)

    return work


def _raw_chunks(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
    """A bfloat16 checkpoint's values as uint16, mapped, in chunks."""
    import torch

    for name in checkpoint.tensors:
        raw = checkpoint.tensor(name).view(torch.uint16).numpy().reshape(-1)
        for start in range(0, raw.size, FLOOR_CHUNK):
            yield raw[start : start + FLOOR_CHUNK]


def _run_command(name: str, models: list[Path], out: Path) -> list[str]:
    base, *experts = models
    table = ", ".join(f"{model.name}: {model}" for model in experts)
    density = [f"method.density={DENSITY}"] if "ties" in name or "dare" in name else []
    return [
        sys.executable, "run.py", f"method={name}", *density, "population=custom", "threads=1",
        f"population.base={base}", f"population.experts={{{table}}}", "benchmarks=none",
        "omega=null", "save_model=true", "tracker=none", f"hydra.run.dir={out}",
        f"cache_dir={out / 'cache'}",
    ]  # fmt: skip


def _mergekit_command(name: str, models: list[Path], out: Path, python: str) -> list[str]:
    config = {
        **MERGEKIT[name],
        "dtype": "bfloat16",
        "models": [
            {"model": str(model), "parameters": {"weight": 1.0, "density": DENSITY}}
            for model in models[1:]
        ],
    }
    if name != "linear":
        config["base_model"] = str(models[0])
    path = out.with_suffix(".yaml")
    path.write_text(json.dumps(config))
    script = str(Path(python).with_name("mergekit-yaml"))
    return [python, script, str(path), str(out), "--lazy-unpickle", "--no-copy-tokenizer"]


def _print_table(rounds: dict[str, list[Measured]], options: argparse.Namespace) -> None:
    def median(job: str, field: str) -> float:
        return statistics.median(getattr(run, field) for run in rounds[job])

    size = f"{options.parameters / 1e6:.0f} M parameters"
    if options.many:
        size = f"{options.many} tensors of 64 x 64"
    print(
        f"{size}, base + {options.experts} experts, bf16, "
        f"one thread; {platform.machine()}, {os.cpu_count()} processors, "
        f"load {os.getloadavg()[0]:.1f}; medians of {options.rounds} rounds"
    )
    print(f"{'':28}{'CPU s':>8}{'spread':>14}{'/ floor':>9}{'process':>9}{'wall':>8}{'MiB':>7}")
    for job, runs in rounds.items():
        spread = f"{min(r.cpu for r in runs):.2f}-{max(r.cpu for r in runs):.2f}"
        print(
            f"{job:28}{median(job, 'cpu'):8.2f}{spread:>14}"
            f"{median(job, 'cpu') / median(FLOOR, 'cpu'):9.2f}{median(job, 'process_cpu'):9.2f}"
            f"{median(job, 'wall'):8.2f}{median(job, 'peak_mib'):7.0f}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=500_000_000)
    parser.add_argument("--many", type=int, metavar="N", help="instead: N tensors of 64 x 64")
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", help=f"of {', '.join(OURS)}; NAME@2, run:NAME")
    parser.add_argument("--mergekit", metavar="PATH/python", help="its interpreter")
    parser.add_argument("--folder", help="where the models are kept (default: temporary)")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
