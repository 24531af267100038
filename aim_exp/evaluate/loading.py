"""lm-eval's task objects, made once per process and reused for every model and job."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, cast

from lm_eval.evaluator_utils import get_sample_size
from lm_eval.tasks.manager import TaskDict

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.local_data import LocalFactory, is_absent
from aim_exp.evaluate.metrics import Scores
from aim_exp.evaluate.near_ties import TIES
from aim_exp.evaluate.rehearsal import Rehearsal, rehearse
from aim_exp.evaluate.rng import own_rng
from aim_exp.evaluate.spec import DATA_SUFFIXES
from aim_exp.evaluate.task_files import files_digest, folder_digest
from aim_exp.evaluate.task_index import known_tasks, leaves
from aim_exp.store.stage_spec import canonical_json
from aim_exp.types import Benchmark, Suite

FEWSHOT_SEED = 1234
"""lm-eval's own default; it chooses the examples in a prompt."""
TASK = "task"
"""As a benchmark's `cluster`: the items of each task of a group are a family."""


@dataclass(frozen=True)
class LoadedTask:
    """A task or group of tasks, configured for a suite; `name` is its row in lm-eval's results.

    `absent` are the group's tasks that are left out, because `data_dir` has nothing for them.
    `rehearsals` are by the name of the task.
    """

    name: str
    tasks: TaskDict
    rehearsals: Mapping[str, Rehearsal]
    absent: tuple[str, ...] = ()

    def reseed(self) -> None:
        """Make the next prompts draw the same few-shot examples as the first ones."""
        for task in self.tasks["tasks"].values():
            task.set_fewshot_seed(seed=FEWSHOT_SEED)


def load_task(suite: Suite, benchmark: Benchmark) -> LoadedTask:
    """The benchmark's task, with the suite's shots and generation arguments.

    EvaluationError if lm-eval cannot make it: unknown, or its data or packages are missing.
    """
    generation = canonical_json(dict(suite.generation))
    task, digest = benchmark.task, files_digest(suite.task_folder, benchmark.task)
    data = (suite.data_dir, folder_digest(suite.data_dir, DATA_SUFFIXES))
    try:
        loaded = _load(
            suite.task_folder, digest, data, task, benchmark.num_fewshot, generation,
            suite.items_seed,
        )  # fmt: skip
    except Exception as error:  # lm-eval, its tasks and the hub raise every kind
        ours = isinstance(error, EvaluationError)
        reason = (str(error) if ours else f"{type(error).__name__}: {error}").splitlines()[0]
        if isinstance(error, IndexError):
            reason += "; an answer is none of its choices, which count from 0"
        offline = isinstance(error, ConnectionError)
        hint = "; without a network, set benchmarks.data_dir" if offline else ""
        if suite.data_dir is not None:
            hint = f"; check the files in benchmarks.data_dir={suite.data_dir}"
        raise EvaluationError(
            f"benchmark {benchmark.name}: the task {benchmark.task} cannot be loaded; "
            f"{reason}{hint}"
        ) from error
    _check_cluster(benchmark, loaded)
    return loaded


def _check_cluster(benchmark: Benchmark, loaded: LoadedTask) -> None:
    if benchmark.cluster in (None, TASK):
        return
    for name, task in cast("Mapping[str, Any]", loaded.tasks["tasks"]).items():
        if benchmark.cluster not in task.features:
            raise EvaluationError(
                f"benchmarks.tasks.{benchmark.name}.cluster={benchmark.cluster}: the items of "
                f"{name} have no such column; they have {', '.join(task.features)}; {TASK} stands "
                "for the task itself"
            )


def rehearsed_scores(loaded: LoadedTask) -> Scores | None:
    """Scores as the task's will be, each the one farthest from 0.5 that was rehearsed.

    None where a part of it could not be scored. Those of one item tell which metrics there are
    and in which range.
    """
    parts = [rehearsal.metrics for rehearsal in loaded.rehearsals.values()]
    if None in parts:
        return None
    values: dict[str, list[float]] = {}
    for key, numbers in (pair for part in parts if part for pair in part.items()):
        values.setdefault(key, []).extend(numbers)
    if group := loaded.tasks.get("groups", {}).get(loaded.name):
        means = [(m.metric, m.filter_list) for m in group.aggregate_metric_list or ()]
        values = {
            key: numbers
            for key, numbers in values.items()
            for name, filters in means
            if key.partition(",")[0] == name and (not filters or key.partition(",")[2] in filters)
        }
    finite = {key: [v for v in numbers if isfinite(v)] for key, numbers in values.items()}
    return Scores(
        task=loaded.name,
        n=1,
        metrics={
            key: max(numbers, key=lambda value: abs(value - 0.5), default=0.5)
            for key, numbers in finite.items()
        },
        stderrs={},
        higher_is_better=directions(loaded),
    )


def directions(loaded: LoadedTask) -> dict[str, bool | None]:
    """Whether each metric is maximised; lm-eval says nothing of groups of groups, as mmlu is."""
    maximised: dict[str, bool | None] = {}
    for task in loaded.tasks["tasks"].values():
        for metric, higher in (task.higher_is_better() or {}).items():
            agreed = maximised.get(metric, higher) == higher
            maximised[metric] = higher if agreed else None
    return maximised


def n_items(suite: Suite, benchmark: Benchmark) -> int:
    """How many items an evaluation of the benchmark goes through."""
    tasks = load_task(suite, benchmark).tasks["tasks"].values()
    limits = [(len(task.eval_docs), get_sample_size(task, suite.limit)) for task in tasks]
    return sum(size if limit is None else min(size, limit) for size, limit in limits)


@cache
def _load(
    folder: Path | None,
    digest: str | None,
    data: tuple[Path | None, str | None],
    task: str,
    num_fewshot: int | None,
    generation: str,
    items_seed: int,
) -> LoadedTask:
    """Again where the digest of the task's files, or of those in the data's folder, is another."""
    known, absent = known_tasks(folder, task), ()
    assert known.entry, "check_suite refuses an unknown task"
    manager, data_dir = known.manager(items_seed), data[0]
    if data_dir is not None:
        manager._factory = LocalFactory(data_dir)
        members = leaves(known.index, known.entry)
        absent = tuple(leaf.name for leaf in members if is_absent(data_dir, leaf))
    with own_rng():  # some tasks shuffle their items with the global generator
        loaded = manager.load([known.entry.name])
    rehearsals: dict[str, Rehearsal] = {}
    for name, item in loaded["tasks"].items():
        _configure(item, num_fewshot, json.loads(generation))
        with own_rng():
            rehearsals[name] = rehearse(item)
        TIES.watch(item)
        _remember_requests(item)
    return LoadedTask(known.entry.name, loaded, rehearsals, absent)


def _configure(task: Any, num_fewshot: int | None, generation: dict[str, Any]) -> None:
    """As lm-eval's `simple_evaluate` does it; a task that fixes 0 shots keeps them."""
    if generation and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value=generation, update=True)
    default = task.get_config("num_fewshot")
    if num_fewshot is not None and default != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif default is None:
        task.set_config(key="num_fewshot", value=0)


def _remember_requests(task: Any) -> None:
    """Build the task's requests once for all models, as long as nothing else is asked.

    A chat template is the model's own, and images are too large to keep: not then.
    """
    build, last = task.build_all_requests, None

    def build_once(**settings: Any) -> None:
        nonlocal last
        if settings != last or settings["chat_template"] or getattr(task, "MULTIMODAL", False):
            build(**settings)
            last = settings if settings["chat_template"] is None else None
            return
        for request in task.instances:
            request.resps, request.filtered_resps = [], {}

    task.build_all_requests = build_once
