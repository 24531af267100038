"""What is wrong with a suite, found before any model is loaded."""

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.loading import load_task, rehearsed_scores
from aim_exp.evaluate.local_data import source
from aim_exp.evaluate.metrics import headline
from aim_exp.evaluate.rehearsal import INSTALL
from aim_exp.evaluate.task_files import is_path
from aim_exp.evaluate.task_index import KnownTasks, known_tasks, leaves, unknown_members
from aim_exp.types import Benchmark, Suite

LENGTH_ALIASES = ("max_new_tokens", "max_tokens", "max_completion_tokens", "max_length")


def check_suite(suite: Suite, download: Collection[str] = ()) -> list[str]:
    """The problems, each a line `key=value: why; fix`.

    Tasks are loaded and tried out where their data are on this machine, and those of the
    benchmarks named in `download` in any case.
    """
    problems = [
        f"benchmarks.generation.{alias}: tasks set max_gen_toks, which would win; set that instead"
        for alias in LENGTH_ALIASES
        if alias in suite.generation
    ]
    for benchmark in suite.benchmarks:
        own = list(_check_benchmark(suite, benchmark))
        if not own and (benchmark.name in download or not any(_hub_datasets(suite, benchmark))):
            own += _rehearse(suite, benchmark)
        problems += own
    return list(dict.fromkeys(problems))


def hub_datasets(suite: Suite) -> list[str]:
    """The data sets that the suite's tasks read from the hub; none where there are local files."""
    names = (name for b in suite.benchmarks for name in _hub_datasets(suite, b))
    return list(dict.fromkeys(names))


def _hub_datasets(suite: Suite, benchmark: Benchmark) -> Iterator[str]:
    known = known_tasks(suite.task_folder, benchmark.task)
    if suite.data_dir is None and known.entry:
        for task in leaves(known.index, known.entry):
            if source(Path(), task.cfg or {}):
                yield str((task.cfg or {})["dataset_path"])


def _rehearse(suite: Suite, benchmark: Benchmark) -> Iterator[str]:
    """Whether the task can be loaded and gives the metric."""
    try:
        scores = rehearsed_scores(load_task(suite, benchmark))
        if scores:
            headline(benchmark, scores)
    except EvaluationError as error:
        yield str(error)


def _check_benchmark(suite: Suite, benchmark: Benchmark) -> Iterator[str]:
    known = known_tasks(suite.task_folder, benchmark.task)
    where = f"benchmarks: {benchmark.name}: task={benchmark.task}"
    entry = known.entry
    if entry is None:
        yield f"{where}: there is no such task; {_why_unknown(known, benchmark.task)}"
        return
    if missing := unknown_members(known.index, entry):
        yield f"{where}: the group names {missing[0]}; {_why_unknown(known, missing[0])}"
        return
    if entry.kind is Kind.TAG:
        yield f"{where}: a tag has no score of its own; name one of {', '.join(sorted(entry.tags))}"
        return
    tasks = list(leaves(known.index, entry))
    configs = [task.cfg or {} for task in tasks]
    if suite.data_dir and (missing := _missing_file(suite.data_dir, configs)):
        yield (
            f"benchmarks.data_dir={suite.data_dir}: {benchmark.name} needs {missing} (or "
            ".parquet); put the hub's rows there"
        )
    if any(config.get("unsafe_code") for config in configs) and not suite.allow_code_execution:
        yield (
            f"benchmarks.allow_code_execution=false: {benchmark.name} runs code that models "
            "write; set it to true"
        )
        return
    if benchmark.num_fewshot and any(config.get("num_fewshot") == 0 for config in configs):
        yield (
            f"{where}, num_fewshot={benchmark.num_fewshot}: the task fixes it at 0; "
            "leave num_fewshot out"
        )
    for task in tasks:
        if missing := _missing_package(task):
            yield f"{where}: {missing}"
            return


def _why_unknown(known: KnownTasks, task: str) -> str:
    """Which own file may have been meant and cannot be read, or which name."""
    if known.unreadable:
        # The file itself where the task is named by its path, or one that tells of the task.
        path = min(
            known.unreadable,
            key=lambda path: (path != Path(task).absolute(), task not in path.read_text("utf-8")),
        )
        return f"{path} cannot be read: {known.unreadable[path]}"
    if is_path(task):
        there = Path(task).is_file()
        return f"the file has no {'`task:` or `group:`' if there else 'such name'}"
    close = difflib.get_close_matches(task, known.index, n=3)
    return f"did you mean {' or '.join(close)}?" if close else "see lm-eval's list of tasks"


def _missing_file(data_dir: Path, configs: list[dict[str, Any]]) -> Path | None:
    """The first file that is not there; a group may lack the folders of some of its tasks."""
    sources = [data for config in configs if (data := source(data_dir, config))]
    started = [data for data in sources if data.folder.is_dir()] or sources[:1]
    return next((path for data in started for path in data.missing()), None)


def _missing_package(task: Entry) -> str | None:
    """What the functions named in the task's file need that is not installed."""
    config = task.cfg or {}
    if "/ifeval" in str(config.get("process_results")) and (missing := _missing_nltk_data()):
        return missing
    if task.yaml_path is None:
        return None
    try:
        load_yaml(task.yaml_path, resolve_func=True)
    except (ImportError, AssertionError) as error:
        reason = " ".join(str(error).split())
        if "antlr4" in reason:
            return (
                "it needs antlr 4.11, Hydra needs 4.9; the same protocol without it is "
                "task=aim_standard_math with benchmarks.task_folder=standard"
            )
        return f"a package that it needs is missing ({reason}); {INSTALL}"
    return None


def _missing_nltk_data() -> str | None:
    """Asked first, because lm-eval would try to download it."""
    try:
        import nltk

        nltk.data.find("tokenizers/punkt_tab")
    except ImportError:
        return f"a package that it needs is missing (nltk); {INSTALL}"
    except LookupError:
        return (
            "nltk's data punkt_tab are missing; run python -m nltk.downloader punkt_tab, or "
            "without a network unpack punkt_tab.zip in DIR/tokenizers and set NLTK_DATA=DIR"
        )
    return None
