"""Activation-Informed Merging: experiments on merging fine-tuned language models.

`results` and `items` give finished runs as pandas frames, `run_experiment` makes a run.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {"items": "report.frames", "results": "report.frames", "run_experiment": "app"}


def __getattr__(name: str) -> Any:
    """What is exported is imported when it is used: `import aim_exp` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
