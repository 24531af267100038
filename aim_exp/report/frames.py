"""Tidy frames: every score, and every item, of some directories of runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aim_exp.report.load import Runs


def results(*directories: str | Path) -> pd.DataFrame:
    """Every score in or below `directories`: a line per model and benchmark.

    Columns: `sweep`, `job`, `status`, `model`, `role` (base, expert, reference, merged),
    `benchmark`, `metric` (lm-eval's key of the headline), `value` (in [0, 1]), `stderr`, `n`
    (items), `method`, `omega` (1.0 for a plain merge; missing where it plays no part), `relaxed`,
    `seed`; then every setting by its full key, numbers as numbers, `none` for null. A table of
    equal values is that value, else a column per name (`method.weight.code`).

    Base, experts and references stand once per sweep and population, without settings. A run that
    scored nothing has one line, without a benchmark.
    """
    raise NotImplementedError


def items(*directories: str | Path) -> pd.DataFrame:
    """Every item of every model in or below `directories`: a line per item and metric.

    The columns of `results`, where `value` is the item's, and `n` and `stderr` are left out; then
    `task`, `doc_id`, `prompt`, `target`, `answer` (the text generated, or the likeliest choice).
    """
    raise NotImplementedError


def score_frame(runs: Runs) -> pd.DataFrame:
    """`results` with private columns, each beginning with `_`."""
    raise NotImplementedError


def job_frame(runs: Runs) -> pd.DataFrame:
    """A line per job: `sweep`, `job`, `directory`, `status`, `error`, method, omega, relaxed, seed,
    the settings that vary, each benchmark and its `BENCHMARK_stderr`, then `average`,
    `average_stderr`, `normalised_average`, `gain_over_best_member`, `hypervolume`,
    `hypervolume_gain`, `hypervolume_gain_population`, `on_front`, `on_joint_front`, `seconds`."""
    raise NotImplementedError
