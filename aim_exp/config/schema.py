"""The schema of the configuration: Hydra checks every key and type against it.

What is built from a group option is a frozen dataclass somewhere in the package. Its fields
are the option's keys: they are stated there once, and `_option` turns them into the node
that `conf/GROUP/OPTION.yaml` takes as its first default. The values all stand in `conf/`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
from omegaconf import MISSING, OmegaConf

from aim_exp.aim.calibration import EmbeddedTexts, PileValidation, TextFile
from aim_exp.aim.settings import AimSettings
from aim_exp.config import axes
from aim_exp.config.folder import CONFIG_FOLDER
from aim_exp.errors import ConfigError
from aim_exp.evaluate.evaluators import HfEvaluator, ProcessEvaluator
from aim_exp.merge import METHODS
from aim_exp.population.rescaled import RescaledPopulation
from aim_exp.population.smollm2.source import FineTunedPopulation
from aim_exp.population.sources import EmbeddedPopulation, GivenPopulation
from aim_exp.tracking.mlflow import MlflowTracker
from aim_exp.tracking.none import NullTracker
from aim_exp.tracking.wandb import WandbTracker
from aim_exp.types import Selection

OPTIONS: Mapping[str, type] = {
    **{f"method/{name}": method for name, method in METHODS.items()},
    "population/tiny": EmbeddedPopulation,
    "population/rescaled": RescaledPopulation,
    "population/custom": GivenPopulation,
    "population/smollm2": FineTunedPopulation,
    "calibration/tiny": EmbeddedTexts,
    "calibration/text": TextFile,
    "calibration/pile_val": PileValidation,
    "evaluator/hf": HfEvaluator,
    "evaluator/hf_process": ProcessEvaluator,
    "evaluator/hf_multimodal": ProcessEvaluator,
    "evaluator/vllm": ProcessEvaluator,
    "aim": AimSettings,
    "select": Selection,
    "tracker/wandb": WandbTracker,
    "tracker/mlflow": MlflowTracker,
    "tracker/none": NullTracker,
}


@dataclass
class RunConfig:
    """The keys of `conf/config.yaml`, where they are explained."""

    omega: float | None = MISSING
    seed: int = MISSING
    repeat: int = MISSING
    dtype: str | None = MISSING
    vocabulary: str = MISSING
    take: Any = MISSING
    device: str = MISSING
    threads: int | None = MISSING
    cache_dir: str = MISSING
    save_model: Any = MISSING
    plan: bool = MISSING
    debug: bool = MISSING
    fail_fast: bool = MISSING
    population: Any = MISSING
    method: Any = MISSING
    aim: Any = MISSING
    calibration: Any = MISSING
    benchmarks: Any = MISSING
    evaluator: Any = MISSING
    select: Any = MISSING
    tracker: Any = MISSING


@dataclass
class BenchmarksConfig:
    """A suite: what is scored, and how the prompts are made.

    `tasks` is a list of lm-eval tasks, or maps a benchmark's name to {task, metric,
    num_fewshot, reference_point, direction, scale, objective, cluster}. What a benchmark leaves
    out comes from here.
    """

    tasks: Any = MISSING
    task_folder: str | None = None  # own task files: a folder, or one of the package's
    data_dir: str | None = None  # items from DIR/DATASET/SPLIT.jsonl or .parquet; null: the hub
    num_fewshot: int | None = None  # examples in the prompt; null: the task's own
    reference_point: float = 0.0  # of the hypervolume, on every axis that names none
    limit: float | None = None  # items per task, or a share below 1
    chat_template: Any = False  # true, or the name of one of the tokenizer's templates
    system_instruction: str | None = None
    fewshot_as_multiturn: bool = False  # examples as turns of a chat
    generation: Any = None  # generation arguments added to each task's own: {max_gen_toks: 64}
    allow_code_execution: bool = False  # code benchmarks run what the model wrote
    items_seed: int = 0  # which set of test items, of those that the built-in tasks have


def known_benchmarks() -> set[str]:
    """The names of the benchmarks in all suites of `conf/benchmarks`."""
    files = (CONFIG_FOLDER / "benchmarks").rglob("*.yaml")
    suites = [OmegaConf.to_container(OmegaConf.load(file)) for file in files]
    tasks = [suite.get("tasks") for suite in suites if isinstance(suite, dict)]
    return {str(name) for names in tasks if isinstance(names, dict | list) for name in names}


def register() -> None:
    """Put the schema and the resolvers where Hydra finds them; once per process."""
    setattr(HydraOverrideVisitor, "visitDictContainer", _distinct_keys)  # noqa: B010
    axes.register()
    store = ConfigStore.instance()
    store.store(group="schema", name="run", node=RunConfig)
    store.store(group="schema", name="benchmarks", node=BenchmarksConfig)
    for option, built in OPTIONS.items():
        group, _, name = f"schema/{option}".rpartition("/")
        store.store(group=group, name=name, node=_option(option, built))
    # The same for a run's folder and all that is named after it.
    OmegaConf.register_new_resolver(
        "short_id", lambda: secrets.token_hex(2), use_cache=True, replace=True
    )


def _distinct_keys(visitor: HydraOverrideVisitor, context: Any) -> dict[str, Any]:
    """The table `{key: value, ...}` of an override; Hydra's own keeps the last of equal keys."""
    table: dict[str, Any] = {}
    for index in range(1, context.getChildCount() - 1, 2):
        key, value = visitor.visitDictKeyValuePair(context.getChild(index))
        if key in table:
            override = context
            while override.parentCtx:
                override = override.parentCtx
            text = override.getText().removesuffix("<EOF>")
            raise ConfigError([f"{text}: {key} is given twice; name it once"])
        table[key] = value
    return table


def _option(option: str, built: type) -> type:
    """A mutable dataclass with the fields of `built` and its import path as `_target_`.

    Its `option`, as a person chooses it, is for errors.
    """
    hints = get_type_hints(built)
    keys = [(f.name, _key_type(hints[f.name]), MISSING) for f in fields(built) if f.init]
    target = field(default=f"{built.__module__}.{built.__qualname__}")
    chosen = {"option": option.replace("/", "=")}
    return make_dataclass(built.__name__, [("_target_", str, target), *keys], namespace=chosen)


def _key_type(hint: Any) -> Any:
    """Hydra checks plain types and lists of strings; tables and choices are the builder's."""
    plain = (bool, int, float, str, bool | None, int | None, float | None, str | None)
    if hint in plain:
        return hint
    return list[str] if hint == tuple[str, ...] else Any
