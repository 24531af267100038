"""What a task's score depends on, for content keys. Nothing heavy is imported here."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aim_exp.store.keys import canonical_json
from aim_exp.types import Benchmark, Suite

TINY_TASKS = Path(__file__).parent / "tasks" / "tiny"
"""The built-in suite's task files; the items come from `aim_exp.population.embedded.items`."""
SCORERS = {
    "aim_paper_gsm8k": "math-verify",
    "aim_paper_math": "math-verify",
    "aim_standard_math": "math-verify",
    "aim_paper_ifeval": "langdetect",
    "ifeval": "langdetect",
}
"""Tasks whose scores another package than lm-eval decides."""
TASK_SUFFIXES = (".yaml", ".py")
DATA_SUFFIXES = (".jsonl", ".parquet")
"""Of the files in a suite's `data_dir`."""


def task_spec(suite: Suite, benchmark: Benchmark) -> dict[str, Any]:
    """The ingredients of the benchmark's score, the model's responses aside.

    Not the metric: all of them are kept, and the headline is chosen on reading.
    """
    return {
        "task": benchmark.task,
        "task_files": _folder_digest(suite.task_folder, TASK_SUFFIXES),
        "items": _items(suite, benchmark),
        "lm_eval": version("lm_eval"),
        "scorer": _scorer(benchmark.task),
        "num_fewshot": benchmark.num_fewshot,
        "limit": suite.limit,
        "chat_template": suite.chat_template,
        "system_instruction": suite.system_instruction,
        "fewshot_as_multiturn": suite.fewshot_as_multiturn,
        "generation": dict(suite.generation),
    }


def _items(suite: Suite, benchmark: Benchmark) -> str | None:
    """The digest of what is asked; None where it comes from the hub."""
    if suite.task_folder == TINY_TASKS:
        return _items_digest(benchmark.task.removeprefix("aim_tiny_"))
    return _folder_digest(suite.data_dir, DATA_SUFFIXES)


def _scorer(task: str) -> str | None:
    """The package that decides which answers are right, with its version."""
    package = SCORERS.get(task)
    try:
        return f"{package} {version(package)}" if package else None
    except PackageNotFoundError:  # check_suite says so
        return None


@cache
def _folder_digest(folder: Path | None, suffixes: tuple[str, ...]) -> str | None:
    if folder is None:
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in suffixes:
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def _items_digest(kind: str) -> str:
    from aim_exp.population.embedded.items import test_items

    return hashlib.sha256(canonical_json(test_items(kind)).encode()).hexdigest()
