"""Records of runs that nobody made, and what is printed or written of them, read back."""

import csv
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
from rich.console import Console

from aim_exp.pareto import hypervolume, hypervolume_gain, non_dominated
from aim_exp.store.records import RunRecord

BENCHMARKS = ("humaneval", "mbpp", "math", "gsm8k", "mmlu", "ifeval")
POPULATION = {
    "base": (0.32, 0.38, 0.28, 0.44, 0.61, 0.28),
    "code": (0.93, 0.80, 0.17, 0.21, 0.48, 0.22),
    "instruct": (0.09, 0.26, 0.16, 0.28, 0.97, 0.69),
    "math": (0.25, 0.34, 0.45, 0.81, 0.54, 0.27),
}
MERGED = (0.50, 0.54, 0.24, 0.35, 0.80, 0.51)
UNSCORED = dict.fromkeys((
    "scores", "stderr", "n_items", "population_scores", "population_stderr", "average",
    "normalised_average", "gain_over_best_member", "on_front", "hypervolume",
    "hypervolume_gain", "hypervolume_gain_population", "hypervolume_difference",
))  # fmt: skip


def by_benchmark(values):
    return dict(zip(BENCHMARKS, values, strict=True))


def errors(values):
    return {name: (p * (1 - p) / 149) ** 0.5 for name, p in by_benchmark(values).items()}


def record(method="ties", omega: float | None = 0.4, scores=MERGED, **changed) -> RunRecord:
    population = np.array(list(POPULATION.values()))
    gain = hypervolume_gain(scores, population)
    on_front = non_dominated([*population, scores])
    names = [*POPULATION, "merged"]
    made = RunRecord(
        created="2026-01-02T03:04:05Z",
        command=f"python run.py method={method} omega={'null' if omega is None else omega}",
        method=method,
        method_settings={"weight": 1.0, "density": 0.2},
        omega=omega,
        aim={"statistic": "mean_abs", "scaling": "relative"},
        calibration={"name": "tiny", "n_samples": 64, "n_texts": 60},
        population={
            "name": "tiny",
            "base": "somewhere",
            "experts": {"code": "a", "instruct": "b", "math": "c"},
            "merged": ["code", "instruct", "math"],
        },
        suite="tiny",
        scores=by_benchmark(scores),
        stderr=errors(scores),
        population_scores={name: by_benchmark(row) for name, row in POPULATION.items()},
        population_stderr={name: errors(row) for name, row in POPULATION.items()},
        average=float(np.mean(scores)),
        normalised_average=0.8,
        on_front=[name for name, mark in zip(names, on_front, strict=True) if mark],
        hypervolume=hypervolume([*population, scores]),
        hypervolume_gain=gain,
        hypervolume_gain_population=gain,
        timings={"merge": 1.0, "evaluate": 2.0},
        versions={"torch": "2.13.0"},
    )
    return replace(made, **changed)


def failed(error: str | None = "method.density=2: must lie in (0, 1]") -> RunRecord:
    return RunRecord(status="failed", error=error, method="ties", omega=0.4)


def shifted(amount):
    return tuple(round(score + amount, 6) for score in MERGED)


def write_all(directory: Path, *records: RunRecord) -> Path:
    for number, item in enumerate(records):
        folder = directory / str(number)
        folder.mkdir(parents=True)
        item.write(folder)
    return directory


def printed(show, width=200) -> str:
    console = Console(width=width, highlight=False, record=True, file=StringIO())
    show(to=console)
    return console.export_text()


def rows_of(directory: Path) -> list[dict[str, str]]:
    with (directory / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def relaxed_sweep(directory: Path) -> Path:
    kinds = ("all", "q_proj", "post_attention_layernorm", "down_proj")
    values = {kind: {"mean_r": 0.7 + i / 20, "delta_kept": 0.72 + i / 20}
              for i, kind in enumerate(kinds)}  # fmt: skip
    methods = ("ties", "dare_ties", "task_arithmetic", "dare_linear")
    return write_all(
        directory,
        *(record(m, None, shifted(-0.02 * i)) for i, m in enumerate(methods)),
        *(record(m, 0.4, shifted(0.02 * i), relaxation=values) for i, m in enumerate(methods)),
    )


def drawn(key: str, made: RunRecord, seed: int = 0, **changed) -> RunRecord:
    """A record whose answers have the key; base's and the experts' are the same for all."""
    keys = {"responses": {**dict.fromkeys(POPULATION, "same"), "merged": key}}
    stochastic = made.method != "ties"
    return replace(made, keys=keys, seed=seed, stochastic=stochastic, **changed)
