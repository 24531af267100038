"""What a task's score depends on, for content keys. Nothing heavy is imported here."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aim_exp.keys import canonical_json
from aim_exp.types import Benchmark, Suite

TINY_TASKS = Path(__file__).parent / "tasks" / "tiny"
"""The task files of the built-in suite; their items come from `aim_exp.embedded.items`."""


def task_spec(suite: Suite, benchmark: Benchmark) -> dict[str, Any]:
    """The ingredients of the benchmark's score, the model's responses aside.

    Not the metric: all of them are kept, and the headline is chosen on reading.
    """
    return {
        "task": benchmark.task,
        "task_files": _folder_digest(suite.task_folder) if suite.task_folder else None,
        "items": _items_digest(benchmark.name) if suite.task_folder == TINY_TASKS else None,
        "lm_eval": version("lm_eval"),
        "num_fewshot": benchmark.num_fewshot,
        "limit": suite.limit,
        "chat_template": suite.chat_template,
        "system_instruction": suite.system_instruction,
        "fewshot_as_multiturn": suite.fewshot_as_multiturn,
        "generation": dict(suite.generation),
    }


@cache
def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".yaml", ".py"):
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def _items_digest(benchmark: str) -> str:
    from aim_exp.embedded.items import test_items

    return hashlib.sha256(canonical_json(test_items(benchmark)).encode()).hexdigest()
