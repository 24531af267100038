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
    """The code's commit (None outside a repository), platform, processors, threads, GPU."""
    torch = sys.modules.get("torch")  # a refused configuration did not get as far
    return {
        **_code(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
    }


@cache
def _code() -> Mapping[str, Any]:
    """Asked once: what a process runs is the code that it began with."""
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
