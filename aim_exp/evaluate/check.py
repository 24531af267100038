"""What is wrong with a suite, found before any model is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from aim_exp.evaluate.loading import task_manager
from aim_exp.types import Benchmark, Suite

LENGTH_ALIASES = ("max_new_tokens", "max_tokens", "max_completion_tokens", "max_length")


def check_suite(suite: Suite) -> list[str]:
    """The problems, each a line `key=value: why; fix`. No data is loaded."""
    problems = [
        f"benchmarks.generation.{alias}: tasks set max_gen_toks, which would win; set that instead"
        for alias in LENGTH_ALIASES
        if alias in suite.generation
    ]
    for benchmark in suite.benchmarks:
        problems += _check_benchmark(suite, benchmark)
    return list(dict.fromkeys(problems))


def _check_benchmark(suite: Suite, benchmark: Benchmark) -> Iterator[str]:
    manager = task_manager(suite.task_folder, benchmark.task)
    where = f"benchmarks: {benchmark.name}: task={benchmark.task}"
    entry = manager.task_index.get(benchmark.task)
    if entry is None:
        close = difflib.get_close_matches(benchmark.task, manager.all_tasks, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see lm-eval's list of tasks"
        yield f"{where}: there is no such task; {hint}"
        return
    if entry.kind is Kind.TAG:
        yield f"{where}: a tag has no score of its own; name one of {', '.join(sorted(entry.tags))}"
        return
    leaves = list(_leaves(manager, entry))
    if any(config.get("unsafe_code") for _, config in leaves) and not suite.allow_code_execution:
        yield (
            f"benchmarks.allow_code_execution=false: {benchmark.name} runs code that models "
            "write; set it to true"
        )
        return
    if benchmark.num_fewshot and any(config.get("num_fewshot") == 0 for _, config in leaves):
        yield (
            f"{where}, num_fewshot={benchmark.num_fewshot}: the task fixes it at 0; "
            "leave num_fewshot out"
        )
    for path in dict.fromkeys(path for path, _ in leaves):
        if missing := _missing(path):
            yield f"{where}: {missing}"
            return


def _leaves(manager: TaskManager, entry: Entry) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The file and configuration of the task, or of every task below the group."""
    if entry.kind is not Kind.GROUP:
        if entry.yaml_path is not None:
            yield entry.yaml_path, entry.cfg or {}
        return
    for member in (entry.cfg or {}).get("task", []):
        name = member if isinstance(member, str) else member.get("task") or member.get("group")
        if isinstance(name, str) and name in manager.task_index:
            child = manager.task_index[name]
            for tagged in sorted(child.tags) if child.kind is Kind.TAG else [name]:
                yield from _leaves(manager, manager.task_index[tagged])


def _missing(path: Path) -> str | None:
    """What the functions named in the task's file need that is not installed."""
    if "ifeval" in path.parent.name and (missing := _missing_nltk_data()):
        return missing
    try:
        load_yaml(path, resolve_func=True)
    except (ImportError, AssertionError) as error:
        return f"a package that it needs is missing; {' '.join(str(error).split())}"
    return None


def _missing_nltk_data() -> str | None:
    """Asked first, because lm-eval would try to download it."""
    try:
        import nltk

        nltk.data.find("tokenizers/punkt_tab")
    except ImportError:
        return "a package that it needs is missing; pip install nltk langdetect immutabledict"
    except LookupError:
        return "nltk's data punkt_tab are missing; run python -m nltk.downloader punkt_tab"
    return None
