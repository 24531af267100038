"""The metric `code_eval` that lm-eval's code tasks load from the hub, made here instead."""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from aim_exp.evaluate.code.execution import TIMEOUT, runner

Verdict = tuple[int, dict[str, Any]]


class CodeEval:
    """The share of problems that one of k candidates solves; the interface of the hub's metric."""

    def compute(
        self,
        references: Sequence[str],
        predictions: Sequence[Sequence[str]],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int = 1,
        timeout: float = TIMEOUT,
    ) -> tuple[dict[str, float], dict[int, list[Verdict]]]:
        """`{"pass@k": ...}` over problems, and each candidate's verdict by problem.

        A problem is a list of candidate programs and the source of its tests. A k larger
        than some problem's number of candidates is left out. `num_workers` is ignored.
        """
        verdicts: dict[int, list[Verdict]] = defaultdict(list)
        for problem, (candidates, tests) in enumerate(zip(predictions, references, strict=True)):
            for number, candidate in enumerate(candidates):
                outcome = runner().passes(candidate, tests, timeout)
                verdict = {
                    "task_id": problem,
                    "passed": outcome.passed,
                    "result": outcome.reason,
                    "completion_id": number,
                }
                verdicts[problem].append((number, verdict))
        passed = [[verdict["passed"] for _, verdict in verdicts[n]] for n in sorted(verdicts)]
        shares = {
            f"pass@{size}": sum(_pass_at(size, marks) for marks in passed) / len(passed)
            for size in k
            if all(len(marks) >= size for marks in passed)
        }
        return shares, verdicts


@cache
def install_code_eval() -> None:
    """Make `evaluate.load("code_eval")` give a `CodeEval`, with no hub and no network."""
    import evaluate
    from evaluate.loading import load

    def load_here(path: str, *args: Any, **options: Any) -> Any:
        return CodeEval() if path == "code_eval" else load(path, *args, **options)

    setattr(evaluate, "load", load_here)  # noqa: B010


def _pass_at(k: int, marks: Sequence[bool]) -> float:
    """The chance that one of k candidates drawn without replacement passes."""
    n, correct = len(marks), sum(marks)
    return 1 - math.comb(n - correct, k) / math.comb(n, k)
