"""Calibration, measured: `python -m tests.perf.calibrate`.

A pass that measures every input (`measure`) and one that also reads the layers one by one
(`layers`) beside a plain pass of the same model without its head over the same blocks, in
turn, one thread. CPU seconds come from one process that runs them all, memory from a process
for each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.perf.process import peak_memory

if TYPE_CHECKING:
    from torch import Tensor

PLAIN, MEASURE, LAYERS = VARIANTS = ("plain", "measure", "layers")
MEMORY_BLOCKS = 2
"""As many blocks show the peak as any number."""


@dataclass(frozen=True)
class Case:
    """A dtype, and the length of a block in tokens."""

    dtype: str
    block_size: int


@dataclass(frozen=True)
class Measured:
    """One variant in one case, every round: CPU seconds, and the most anonymous memory in MiB.

    The memory is all that a pass needs beside the imports, weights too unless they are mapped.
    """

    case: Case
    variant: str
    cpu: list[float]
    peak_mib: list[float]


def main() -> None:
    """Make the model, measure every case, print medians, ratios to the plain pass and memory."""
    options = _options()
    if options.job:
        _run_job(options)
        return
    from tests.perf.models import make_family

    folder = Path(options.folder or tempfile.gettempdir()) / f"aim-perf-{options.parameters}"
    (base,) = make_family(folder, options.parameters, 0)
    _print_head(options)
    results: list[Measured] = []
    for case in (Case(d, size) for d in options.dtypes for size in options.block_sizes):
        cpu = _in_process("time", base, case, options)
        peaks: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(options.rounds):
            for variant in VARIANTS:
                peaks[variant].append(_in_process(variant, base, case, options))
        found = [Measured(case, variant, cpu[variant], peaks[variant]) for variant in VARIANTS]
        _print_case(found)
        results += found
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(result) for result in results]))


def _in_process(job: str, base: Path, case: Case, options: argparse.Namespace) -> Any:
    """What `_run_job` prints, in a process of its own."""
    command = [sys.executable, "-m", "tests.perf.calibrate", "--job", job, "--base", str(base)]
    command += ["--dtypes", case.dtype, "--block-sizes", str(case.block_size)]
    command += ["--tokens", str(options.tokens), "--rounds", str(options.rounds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _run_job(options: argparse.Namespace) -> None:
    """Print the CPU seconds of every variant's rounds, or the peak memory of one variant."""
    import torch

    import aim_exp.aim.saliency  # noqa: F401 (an import is no part of the work)

    torch.set_num_threads(1)
    (dtype,), (block_size,) = options.dtypes, options.block_sizes
    shape = (max(1, options.tokens // block_size), block_size)
    blocks = torch.randint(3, 32_000, shape, generator=torch.Generator().manual_seed(0))
    if options.job == "time":
        passes = {name: _pass(name, Path(options.base), dtype, blocks) for name in VARIANTS}
        cpu: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for run in range(1 + options.rounds):
            for name in VARIANTS:  # in turn, so that a slow minute hits all alike
                start = time.process_time()
                passes[name]()
                if run:  # the first only warms up
                    cpu[name].append(time.process_time() - start)
        print(json.dumps(cpu))
    else:
        with peak_memory(0.001) as peak:
            _pass(options.job, Path(options.base), dtype, blocks[:MEMORY_BLOCKS])()
        print(json.dumps(peak[0]))


def _pass(variant: str, base: Path, dtype: str, blocks: Tensor) -> Callable[[], object]:
    """A pass of the model over `blocks`, ready to run; plain and measured share the model."""
    import torch

    from aim_exp.aim.measure import measure, measure_layerwise
    from aim_exp.checkpoint.layerwise import LayerwiseModel
    from aim_exp.checkpoint.live import LiveModel, only_model
    from aim_exp.checkpoint.reader import Checkpoint

    if variant == LAYERS:
        layerwise = LayerwiseModel(Checkpoint(base, base.name), dtype, "cpu")
        return lambda: measure_layerwise(layerwise, blocks, _ignore)
    model = only_model((base, dtype), lambda: LiveModel(base, dtype, "cpu")).model
    if variant == MEASURE:
        return lambda: measure(model, blocks, _ignore)

    @torch.no_grad()
    def plain() -> None:
        for block in blocks:
            model.base_model(input_ids=block.unsqueeze(0), use_cache=False)

    return plain


def _ignore(count: int) -> None:
    """No progress bar."""


def _print_head(options: argparse.Namespace) -> None:
    print(
        f"{options.parameters / 1e6:.0f} M parameters, {options.tokens} tokens a pass, one thread; "
        f"{platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; "
        f"medians of {options.rounds} rounds"
    )
    print(
        f"{'':34}{'CPU s':>8}{'spread':>14}{'/ plain':>9}{'spread':>12}"
        f"{'MiB':>7}{'- plain':>9}{'spread':>16}"
    )


def _print_case(found: list[Measured]) -> None:
    """A line for each variant; ratios and differences are those of one round each."""
    plain = found[0]
    for result in found:
        ratios = [ours / theirs for ours, theirs in zip(result.cpu, plain.cpu, strict=True)]
        extra = [
            ours - theirs for ours, theirs in zip(result.peak_mib, plain.peak_mib, strict=True)
        ]
        label = f"{result.case.dtype}, blocks of {result.case.block_size}"
        print(
            f"{label:26}{result.variant:8}{statistics.median(result.cpu):8.2f}"
            f"{f'{min(result.cpu):.2f}-{max(result.cpu):.2f}':>14}{statistics.median(ratios):9.3f}"
            f"{f'{min(ratios):.2f}-{max(ratios):.2f}':>12}"
            f"{statistics.median(result.peak_mib):7.0f}{statistics.median(extra):+9.0f}"
            f"{f'{min(extra):+.0f} to {max(extra):+.0f}':>16}",
            flush=True,
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=500_000_000)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--block-sizes", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--tokens", type=int, default=2048, help="of a pass, in blocks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the model is kept (default: temporary)")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
