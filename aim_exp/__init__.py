"""Activation-Informed Merging: experiments on merging fine-tuned language models.

From Python: `results` and `items` give what was scored as frames, `plot_front`, `plot_sweep`,
`plot_dose` and `plot_saliency` draw such a frame, `run_experiment` makes a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aim_exp.app import run_experiment
    from aim_exp.report.frames import items, results
    from aim_exp.report.notebook import plot_dose, plot_front, plot_saliency, plot_sweep

__version__ = "0.1.0"
__all__ = [
    "items", "plot_dose", "plot_front", "plot_saliency", "plot_sweep", "results", "run_experiment",
]  # fmt: skip

_PLACES = {
    "items": "aim_exp.report.frames",
    "plot_dose": "aim_exp.report.notebook",
    "plot_front": "aim_exp.report.notebook",
    "plot_saliency": "aim_exp.report.notebook",
    "plot_sweep": "aim_exp.report.notebook",
    "results": "aim_exp.report.frames",
    "run_experiment": "aim_exp.app",
}


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: pandas and Hydra take a while."""
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
