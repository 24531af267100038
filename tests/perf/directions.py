"""What a direction costs, per layer: `python -m tests.perf.directions`.

A matrix of each shape in a Llama's layer, base and experts in bfloat16, on one thread; times how
often a layer has the shape, times the layers; and to 7 B by the operations that it takes. On a GPU,
which is not measured: by what a core and a GPU multiply in float64, if decompositions reached the
same share of it there, and a tenth of that.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from typing import Any

import torch

from aim_exp.merge import IsoC, IsoCts, TsvM, Wudi
from aim_exp.merge.matrices import DataFree
from tests.perf.models import llama_config
from tests.perf.process import peak_memory

FRAME: dict[str, Any] = {"weight": 1.0, "scale": 1.0, "matrices": "linear", "others": "mean"}
METHODS: dict[str, DataFree] = {
    "iso_c": IsoC(**FRAME, rank=None),
    "tsv_m": TsvM(**FRAME, rank=None),
    "iso_cts": IsoCts(**FRAME, rank=None, common=0.8),
    "wudi": Wudi(**FRAME, solver="closed_form"),
}
SEVEN_B = (4096, 11008, 32)
"""Hidden size, intermediate size and layers."""
PRODUCT = 1536
"""Rows and columns of the matrices whose product measures the core."""


def products_per_second() -> float:
    """Operations of matrix products in float64, of one thread."""
    left, right = torch.randn(2, PRODUCT, PRODUCT, dtype=torch.float64)
    left @ right  # the first one starts the library
    began = time.process_time()
    for _ in range(3):
        left @ right
    return 3 * 2 * PRODUCT**3 / (time.process_time() - began)


def shapes(hidden: int, intermediate: int) -> dict[tuple[int, int], int]:
    """Of a layer's matrices, [out, in], and how many there are."""
    return {(hidden, hidden): 4, (intermediate, hidden): 2, (hidden, intermediate): 1}


def operations(name: str, hidden: int, intermediate: int) -> int:
    """What a layer's decompositions grow with: of the shorter side, or of the inputs."""
    return sum(
        count * (math.prod(shape) * min(shape) if name != "wudi" else shape[1] ** 3)
        for shape, count in shapes(hidden, intermediate).items()
    )


def main() -> None:
    """Measure each method and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    config: Any = llama_config(500_000_000)
    parser.add_argument("--hidden", type=int, default=config["hidden_size"])
    parser.add_argument("--intermediate", type=int, default=config["intermediate_size"])
    parser.add_argument("--layers", type=int, default=config["num_hidden_layers"])
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--gpu", type=float, default=19.5, help="its TFLOP/s of products, float64")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = options.hidden, options.intermediate
    print(
        f"{options.experts} experts, one thread of {os.cpu_count()} processors, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    core = products_per_second()
    print(f"products in float64: {core / 1e9:.0f} GFLOP/s here, {options.gpu} TFLOP/s on the GPU")
    print(
        f"{'':10}{'CPU s a layer':>15}{'MiB':>8}{f'{options.layers} layers, h':>16}{'7 B, h':>10}"
        f"{'GPU, min':>20}"
    )
    for name, method in METHODS.items():
        seconds = most = 0.0
        for shape, count in shapes(*sizes).items():
            torch.manual_seed(0)
            deltas = 0.001 * torch.randn(options.experts, *shape).bfloat16()
            with peak_memory() as peak:
                began = time.process_time()
                method.direction(deltas.double())
                seconds += count * (time.process_time() - began)
            most = max(most, peak[0])
        ratio = operations(name, *SEVEN_B[:2]) / operations(name, *sizes)
        whole, seven = seconds * options.layers / 3600, seconds * ratio * SEVEN_B[2] / 3600
        gpu = 60 * seven * core / (options.gpu * 1e12)
        share = f"{gpu:.1f} to {10 * gpu:.0f}"
        print(
            f"{name:10}{seconds:15.1f}{most:8.0f}{whole:16.2f}{seven:10.1f}{share:>20}", flush=True
        )


if __name__ == "__main__":
    main()
