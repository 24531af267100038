"""A model's scores: from the store, or from lm-eval, which answers only what no run has asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from aim_exp.checkpoint.source import WeightSource
from aim_exp.checkpoint.templates import chat_template, stop_tokens
from aim_exp.console import progress
from aim_exp.evaluate.results import ITEMS_FILE, read_result, write_result
from aim_exp.run.keys import ModelPlan
from aim_exp.run.recipe import MERGED
from aim_exp.run.run import Run
from aim_exp.store.stage_spec import file_name
from aim_exp.types import Benchmark, BenchmarkResult, Suite

Scores = dict[str, BenchmarkResult]
"""By benchmark."""


@dataclass(frozen=True)
class Scored:
    """A model's results, and where those of each item are, by benchmark."""

    results: Scores
    items: dict[str, Path]


def score(run: Run, plan: ModelPlan, weights: WeightSource, directory: Path) -> Scored:
    """Every benchmark of the run on the model of `plan`; `weights` make it if it is asked.

    A log of another process goes to `directory`. Raises AimError.
    """
    store, benchmarks = run.store, run.recipe.suite.benchmarks

    def missing() -> list[Benchmark]:
        return [b for b in benchmarks if not store.has(plan.scores[b.name])]

    if missing():
        with store.growing(plan.responses) as folder:
            # Asked again: another process may have scored it while this one waited.
            _ask(run, plan, missing(), weights, folder, directory)
    folders = {b: store.path(plan.scores[b.name]) for b in benchmarks}
    return Scored(
        results={b.name: read_result(folder, b) for b, folder in folders.items()},
        items={b.name: folder / ITEMS_FILE for b, folder in folders.items()},
    )


def _ask(
    run: Run,
    plan: ModelPlan,
    benchmarks: Sequence[Benchmark],
    weights: WeightSource,
    folder: Path,
    directory: Path,
) -> None:
    """Ask lm-eval, and keep each benchmark's results as soon as they are there.

    `folder` holds the model's responses.
    """
    from aim_exp.evaluate.loading import n_items  # and lm-eval with it, which takes seconds

    suite = suite_for(run, plan.name)
    total = sum(n_items(suite, benchmark) for benchmark in benchmarks)
    log = directory / f"evaluator_{file_name(plan.name)}.log"
    with (
        run.evaluator.harness(weights, folder, log) as harness,
        progress(f"Scoring {plan.name}", total) as advance,
    ):
        began = time.monotonic()
        for benchmark, evaluated in harness.each(suite, benchmarks, folder, advance):
            run.store.get_or_make(
                plan.scores[benchmark.name],
                partial(write_result, evaluated=evaluated),
                since=began,
            )
            began = time.monotonic()


def suite_for(run: Run, name: str) -> Suite:
    """The suite as a model is asked it: with the chat template that it takes, or with none."""
    recipe = run.recipe
    suite = recipe.suite
    if not suite.chat_template or name not in recipe.population.chat_template:
        return suite
    source = recipe.templates[name]
    if source is None:
        return replace(suite, chat_template=False, fewshot_as_multiturn=False)
    member = name != MERGED
    home = recipe.home(recipe.population.model(name)) if member else recipe.population.base
    more = [stop for stop in stop_tokens(source) if stop not in stop_tokens(home)]
    return replace(suite, template=chat_template(source, run.template), stops=tuple(more))
