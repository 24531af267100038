"""Choices that a model finds as likely as each other: the first one counts, and this is told.

What a batch holds changes log-likelihoods in their last digits. Where lm-eval takes the largest,
rounding would decide between choices that are in truth equal.
"""

from functools import cache
from typing import Any

import numpy as np

NEAR = 1e-4
"""Nats, and nats per character or byte: log-likelihoods that differ by less are equal."""
CHOOSING = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
"""The metrics for which lm-eval's `process_results` takes an argmax, in its order."""


class _Numpy:
    """numpy as lm-eval's tasks see it: the first of what is nearly the largest is the largest."""

    def __init__(self) -> None:
        self.tied: list[bool] = []
        """Of each argmax of the item that is scored, whether it was close."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def argmax(self, values: Any) -> int:
        near = np.asarray(values) >= np.max(values) - NEAR
        self.tied.append(bool(near.sum() > 1))
        return int(near.argmax())


class Ties:
    """Counts the items in which choices tie for a metric of their task."""

    def __init__(self) -> None:
        self.count = 0

    def watch(self, task: Any) -> None:
        """Count in what this task scores from now on."""
        numpy, score = _lm_evals_numpy(), task.process_results

        def process_results(doc: Any, results: Any) -> Any:
            numpy.tied.clear()
            metrics = score(doc, results)
            ties = dict(zip(CHOOSING, numpy.tied, strict=False))
            self.count += any(ties.get(name) for name in metrics)
            return metrics

        task.process_results = process_results


TIES = Ties()
"""Of this process."""


@cache
def _lm_evals_numpy() -> _Numpy:
    import lm_eval.api.task

    numpy = _Numpy()
    setattr(lm_eval.api.task, "np", numpy)  # noqa: B010
    return numpy
