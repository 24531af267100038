"""Activation-Informed Merging: experiments on merging fine-tuned language models.

From Python: `results` and `items` give what was scored as frames, `figures` those of
a report, `run_experiment` makes a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aim_exp.app import run_experiment
    from aim_exp.report import figures
    from aim_exp.report.frames import items, results

__version__ = "0.1.0"
__all__ = ["figures", "items", "results", "run_experiment"]

_PLACES = {
    "figures": "aim_exp.report",
    "items": "aim_exp.report.frames",
    "results": "aim_exp.report.frames",
    "run_experiment": "aim_exp.app",
}


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: pandas and Hydra take a while."""
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
