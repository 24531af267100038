"""Where a result comes from: library versions, the code's commit, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("aim-exp", "torch", "transformers", "tokenizers", "lm-eval", "numpy", "pymoo",
             "moocore", "hydra-core", "omegaconf", "wandb", "safetensors")  # fmt: skip


@cache
def versions() -> Mapping[str, str]:
    """Python's and the libraries' versions."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def provenance() -> dict[str, Any]:
    """The code's commit (None outside a repository), platform, threads, and the machine."""
    torch = sys.modules.get("torch")  # a refused configuration did not get as far
    return {
        **_code(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads() if torch else None,
        **machine(),
    }


def machine() -> dict[str, Any]:
    """The processor's name and how many there are, GiB of memory, the GPU's name and number."""
    torch = sys.modules.get("torch")
    gpus = torch.cuda.device_count() if torch else 0
    return {
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch and gpus else None,
        "gpus": gpus,
    }


def machine_text(about: Mapping[str, Any]) -> str:
    """`AMD EPYC 7763, 2 processors, 8 GiB of memory, 1 x NVIDIA H100`."""
    text = f"{about['cpu']}, {about['cpus']} processors, {about['memory_gib']:g} GiB of memory"
    return f"{text}, {about['gpus']} x {about['gpu']}" if about["gpu"] else text


@cache
def _cpu_name() -> str:
    """Linux tells it here; of other systems, the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@cache
def _code() -> Mapping[str, Any]:
    """Asked once: what a process runs is the code that it began with."""
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
    }


def _git(*arguments: str) -> str | None:
    try:
        completed = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip()
