"""A task's metrics, and the choice of the one that counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aim_exp.errors import EvaluationError
from aim_exp.types import Benchmark, BenchmarkResult, Score

USUAL_METRIC = {
    "humaneval": "pass@1,create_test",
    "mbpp": "pass_at_1,none",
    "mmlu": "acc,none",
    "hendrycks_math": "exact_match,none",
    "minerva_math": "math_verify,none",
    "gsm8k": "exact_match,flexible-extract",
    "ifeval": "prompt_level_strict_acc,none",
    "mmlu_pro": "exact_match,custom-extract",
}
"""lm-eval's task to the key of the metric that papers report."""


@dataclass(frozen=True)
class Scores:
    """Every metric that lm-eval gave for one task, by its key `name,filter`.

    `metrics` may hold NaN or infinity; `stderrs` is None where lm-eval knows none;
    `higher_is_better` is by the metric's name, None where a group's tasks disagree;
    `n` is the number of items; `warnings` are sentences for the user; `num_fewshot` is None where
    a group's tasks differ.
    """

    task: str
    n: int
    metrics: Mapping[str, float]
    stderrs: Mapping[str, float | None]
    higher_is_better: Mapping[str, bool | None]
    warnings: Sequence[str] = field(default_factory=list)
    num_fewshot: int | None = None


def headline(benchmark: Benchmark, scores: Scores) -> BenchmarkResult:
    """The benchmark's result.

    EvaluationError if its metric is missing, or is minimised or outside [0, 1] and the benchmark
    does not say so. A value beyond the ends of its scale counts as the end, with a warning.
    """
    key = benchmark.metric or USUAL_METRIC.get(benchmark.task) or _first_usable(benchmark, scores)
    if key is None:
        raise EvaluationError(f"{_where(benchmark)}: task has no usable metric; {_given(scores)}")
    if problem := _problem(key, benchmark, scores):
        raise EvaluationError(f"{_where(benchmark)}.metric={key}: {problem}; {_given(scores)}")
    (worst, best), value, stderr = benchmark.ends, scores.metrics[key], scores.stderrs.get(key)
    share = (value - worst) / (best - worst)
    score = min(max(share, 0.0), 1.0)
    warnings = list(scores.warnings)
    if share != score:
        warnings.append(
            f"benchmark {benchmark.name}: {key} is {value:g}, beyond scale=[{worst:g}, {best:g}]; "
            f"it counts as {score:g}"
        )
    return BenchmarkResult(
        score=Score(score, None if stderr is None else stderr / abs(best - worst), scores.n),
        metric=key,
        metrics={name: value for name, value in scores.metrics.items() if math.isfinite(value)},
        ends=benchmark.ends,
        warnings=tuple(warnings),
        num_fewshot=scores.num_fewshot,
    )


def _first_usable(benchmark: Benchmark, scores: Scores) -> str | None:
    worst, best = benchmark.ends
    for key in scores.metrics:
        agrees = scores.higher_is_better.get(key.partition(",")[0]) is (best > worst)
        if agrees and _problem(key, benchmark, scores) is None:
            return key
    return None


def _problem(key: str, benchmark: Benchmark, scores: Scores) -> str | None:
    if key not in scores.metrics:
        return "there is no such metric"
    value = scores.metrics[key]
    if not math.isfinite(value):
        return f"its value is {value}"
    if benchmark.scale:
        return None
    maximised = scores.higher_is_better.get(key.partition(",")[0])
    if benchmark.direction == "max" and not maximised:
        return "it is not one to maximise; set direction: min, or scale: [worst, best]"
    if not 0 <= value <= 1:
        return f"its value {value:g} is outside [0, 1]; set scale: [worst, best]"
    return None


def _where(benchmark: Benchmark) -> str:
    return f"benchmark {benchmark.name} ({benchmark.task})"


def _given(scores: Scores) -> str:
    return f"it gives {', '.join(scores.metrics) or 'none (choose one of its subtasks)'}"
