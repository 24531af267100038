"""From the configuration's group `benchmarks` to a suite, with all that is wrong with it."""

from collections import Counter
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from aim_exp.errors import number_problem
from aim_exp.evaluate.spec import TINY_TASKS
from aim_exp.evaluate.task_files import is_path
from aim_exp.population.embedded.items import SETS
from aim_exp.types import Benchmark, Suite

BENCHMARK_KEYS = (
    "task", "metric", "num_fewshot", "reference_point", "direction", "scale", "objective",
    "cluster",
)  # fmt: skip
DIRECTIONS = ("max", "min")
NOTHING = "none"
"""The option that scores nothing."""
OWN_TASKS = Path(__file__).parent / "tasks"


def build_suite(config: DictConfig, name: str, problems: list[str]) -> Suite | None:
    """The suite that the group `benchmarks` describes, chosen as `name`.

    What is wrong is added to `problems`, `key=value: why; fix` each; None where that leaves none.
    """
    if OmegaConf.is_missing(config, "tasks"):
        return None
    plain = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    tasks = plain["tasks"]
    if isinstance(tasks, list):
        twice = next((task for task, count in Counter(map(str, tasks)).items() if count > 1), None)
        if twice:
            problems.append(f"benchmarks.tasks: {twice} is given twice; name it once")
        tasks = {_name(task): {"task": task} for task in tasks}
    if not isinstance(tasks, dict):
        problems.append(f"benchmarks.tasks={tasks}: must be a list of lm-eval tasks")
        return None
    if not tasks and name != NOTHING:
        problems.append(
            f"benchmarks.tasks={tasks or []}: names no task; benchmarks={NOTHING} scores nothing"
        )
    benchmarks = [_benchmark(config, name, entry, problems) for name, entry in tasks.items()]
    if config.limit is not None and not _is_limit(config.limit):
        problems.append(
            f"benchmarks.limit={config.limit}: must be a whole number of items, a share of them "
            "between 0 and 1, or null"
        )
    if not isinstance(config.chat_template, bool | str):
        template = config.chat_template
        problems.append(f"benchmarks.chat_template={template}: must be true, false or a name")
        return None
    generation = plain["generation"] or {}
    if not isinstance(generation, dict):
        problems.append(f"benchmarks.generation={generation}: must be a table {{argument: value}}")
        return None
    folder = config.task_folder
    if folder is not None:
        folder = OWN_TASKS / folder if (OWN_TASKS / folder).is_dir() else Path(folder)
        if not folder.is_dir():
            problems.append(f"benchmarks.task_folder={config.task_folder}: no such folder")
    if not 0 <= config.items_seed < SETS:
        problems.append(
            f"benchmarks.items_seed={config.items_seed}: must be one of 0 to {SETS - 1}: there are "
            f"{SETS} sets of items that share none"
        )
    elif config.items_seed and folder != TINY_TASKS:
        problems.append(
            f"benchmarks.items_seed={config.items_seed}: only the built-in tasks have several sets "
            "of items; leave it 0"
        )
    data_dir = Path(config.data_dir).expanduser() if config.data_dir is not None else None
    if data_dir is not None and not data_dir.is_dir():
        problems.append(f"benchmarks.data_dir={config.data_dir}: no such folder")
    scored = tuple(b for b in benchmarks if b)
    if scored and not any(b.objective for b in scored):
        problems.append("benchmarks.tasks: none is an objective; leave objective=false out of one")
    return Suite(
        name=name,
        benchmarks=scored,
        task_folder=folder,
        data_dir=data_dir,
        limit=config.limit,
        chat_template=config.chat_template,
        system_instruction=config.system_instruction,
        fewshot_as_multiturn=config.fewshot_as_multiturn,
        generation=generation,
        allow_code_execution=config.allow_code_execution,
        items_seed=config.items_seed,
    )


def suite_warnings(suite: Suite) -> list[str]:
    """What a report will lack, to be said before anything runs."""
    from aim_exp.pareto import MOST_OBJECTIVES  # numpy, which help and refusals do without

    count = len(suite.objectives)
    if count <= MOST_OBJECTIVES:
        return []
    return [
        f"benchmarks.tasks: a hypervolume is of at most {MOST_OBJECTIVES} benchmarks, these are "
        f"{count}; all but the hypervolume is reported"
    ]


def _is_limit(limit: float) -> bool:
    """lm-eval rounds what is above 1 down; what is below is a share."""
    return 0 < limit < 1 or (limit >= 1 and float(limit).is_integer())


def _name(task: Any) -> str:
    """What a benchmark is called that is given as a task alone; a file's name of a path."""
    return Path(task).stem if is_path(str(task)) else str(task)


def _benchmark(config: DictConfig, name: Any, entry: Any, problems: list[str]) -> Benchmark | None:
    key = f"benchmarks.tasks.{name}"
    entry = {"task": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or "task" not in entry or set(entry) - {*BENCHMARK_KEYS}:
        problems.append(f"{key}={entry}: must be {{{', '.join(BENCHMARK_KEYS)}}}, task at least")
        return None
    for part in ("task", "metric", "cluster"):
        if not isinstance(entry.get(part), str | None) or not entry["task"]:
            problems.append(f"{key}.{part}={entry.get(part)}: must be a name, as text")
            return None
    reference = entry.get("reference_point", config.reference_point)
    direction, scale = entry.get("direction") or "max", entry.get("scale")
    objective = entry.get("objective", True)
    wrong = number_problem(f"{key}.reference_point", reference, 0, 1)
    wrong += _scale_problems(key, direction, scale)
    if not isinstance(objective, bool):
        wrong.append(f"{key}.objective={objective}: must be true or false")
    if wrong:
        problems += wrong
        return None
    return Benchmark(
        name=str(name),
        task=entry["task"],
        metric=entry.get("metric"),
        num_fewshot=entry.get("num_fewshot", config.num_fewshot),
        reference_point=float(reference),
        direction=direction,
        scale=scale and (float(scale[0]), float(scale[1])),
        objective=objective,
        cluster=entry.get("cluster"),
    )


def _scale_problems(key: str, direction: Any, scale: Any) -> list[str]:
    if direction not in DIRECTIONS:
        return [f"{key}.direction={direction}: must be {' or '.join(DIRECTIONS)}"]
    if scale is None:
        return []
    if not isinstance(scale, list) or len(scale) != 2:
        return [f"{key}.scale={scale}: must be [worst, best], the metric's values there"]
    wrong = [p for value in scale for p in number_problem(f"{key}.scale", value)]
    if not wrong and (scale[0] == scale[1] or (direction == "min" and scale[0] < scale[1])):
        wrong.append(
            f"{key}.scale={scale}: must be [worst, best]; of what is minimised the best "
            "is the smaller one"
        )
    return wrong
