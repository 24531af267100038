"""What a task's score depends on, for content keys. Nothing heavy is imported here."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aim_exp.evaluate.task_files import files_digest, folder_digest, is_path
from aim_exp.store.stage_spec import canonical_json
from aim_exp.types import Benchmark, Suite

TINY_TASKS = Path(__file__).parent / "tasks" / "tiny"
"""The built-in suite's task files; the items come from `aim_exp.population.embedded.items`."""
TINY_TASK = "aim_tiny_"
"""What its tasks' names begin with; the kind of items follows."""
SCORERS = {
    "aim_paper_gsm8k": "math-verify",
    "aim_paper_math": "math-verify",
    "aim_standard_math": "math-verify",
    "aim_paper_ifeval": "langdetect",
    "ifeval": "langdetect",
}
"""Tasks whose scores another package than lm-eval decides."""
DATA_SUFFIXES = (".jsonl", ".parquet")
"""Of the files in a suite's `data_dir`."""


def task_spec(suite: Suite, benchmark: Benchmark) -> dict[str, Any]:
    """The ingredients of the benchmark's score, the model's responses aside.

    Not the metric: all of them are kept, and the headline is chosen on reading.
    """
    task = benchmark.task
    return {
        "task": Path(task).name if is_path(task) else task,
        "task_files": files_digest(suite.task_folder, task),
        **_items(suite, task),
        "lm_eval": version("lm_eval"),
        "scorer": _scorer(task),
        "num_fewshot": benchmark.num_fewshot,
        "limit": suite.limit,
        "chat_template": suite.chat_template,
        "system_instruction": suite.system_instruction,
        "fewshot_as_multiturn": suite.fewshot_as_multiturn,
        "generation": dict(suite.generation),
        **({"cluster": benchmark.cluster} if benchmark.cluster else {}),
    }


def _items(suite: Suite, task: str) -> dict[str, Any]:
    """The digest of what is asked; None where it comes from the hub, or with the task's files.

    Of the built-in tasks' sets, that of the first, and of the one asked for beside it: those are
    draws of the same task.
    """
    if suite.task_folder != TINY_TASKS or not task.startswith(TINY_TASK):
        return {"items": folder_digest(suite.data_dir, DATA_SUFFIXES)}
    kind, seed = task.removeprefix(TINY_TASK), suite.items_seed
    items = {"items": _tiny_items(kind, 0)}
    return items | ({"items_seed": [seed, _tiny_items(kind, seed)]} if seed else {})


def _scorer(task: str) -> str | None:
    """The package that decides which answers are right, with its version."""
    package = SCORERS.get(task)
    try:
        return f"{package} {version(package)}" if package else None
    except PackageNotFoundError:  # check_suite says so
        return None


@cache
def _tiny_items(kind: str, items_seed: int) -> str | None:
    from aim_exp.population.embedded.items import FIXED, KINDS, test_items

    if kind not in {*KINDS, *FIXED}:  # a misspelt task, which check_suite refuses
        return None
    return hashlib.sha256(canonical_json(test_items(kind, items_seed)).encode()).hexdigest()
