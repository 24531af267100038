"""From the configuration to objects: the one place that instantiates, and all problems at once.

Nothing here imports torch: what is wrong is said before any work is done.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aim_exp.aim.calibration import CalibrationSet
from aim_exp.aim.settings import AimSettings
from aim_exp.checkpoint import companions, vocabulary
from aim_exp.checkpoint.adapters import open_model
from aim_exp.checkpoint.digests import file_digest
from aim_exp.checkpoint.hub import HUB, download
from aim_exp.checkpoint.identity import identified, resolve_model
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.config.plugins import not_built, source_digest
from aim_exp.config.recorded import recorded
from aim_exp.config.schema import known_benchmarks
from aim_exp.config.schema_errors import unknown_keys, unreadable_keys
from aim_exp.errors import ConfigError, collect, did_you_mean, first_line, number_problem
from aim_exp.evaluate.evaluators import Evaluator
from aim_exp.evaluate.spec import task_spec
from aim_exp.evaluate.suite import build_suite
from aim_exp.merge import Given, MergeMethod
from aim_exp.merge.given import take_problems
from aim_exp.population.sources import BASE, GivenPopulation, PopulationSource
from aim_exp.run.checks import configuration_problems, header_problems, misfits, to_merge
from aim_exp.run.plan import make_plan
from aim_exp.run.recipe import Recipe
from aim_exp.run.run import ADAPTER, GIVEN_KEY, LAYOUTS, Run
from aim_exp.store.entries import Store
from aim_exp.tracking.protocol import Tracker
from aim_exp.types import ModelRef, Population, Selection, Suite

DTYPES = ("float32", "bfloat16", "float16")
GROUPS = (
    "population", "method", "aim", "calibration", "benchmarks", "evaluator", "select", "tracker",
)  # fmt: skip
CODED = ("method", "calibration", "evaluator")
"""The groups whose parts change numbers by their code; a population's are its models."""


class _Checked(Protocol):
    def problems(self) -> list[str]: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a configuration names, instantiated, checked and resolved; nothing is fetched."""

    source: PopulationSource
    population: Population
    method: MergeMethod
    given: ModelRef | None
    aim: AimSettings
    calibration: CalibrationSet
    reads_texts: bool
    """Whether base is measured."""
    suite: Suite
    evaluator: Evaluator
    tracker: Tracker
    store: Store
    code: Mapping[str, str]


Memo = dict[Any, Any]
"""What jobs of a sweep have in common, made once for all of them."""


def check(config: DictConfig, choices: Mapping[str, str], memo: Memo | None = None) -> Parts:
    """The parts of the run that `config` describes; `choices` are the options chosen, by group.

    Raises ConfigError that lists everything wrong, each `key=value: why; fix`.
    """
    memo = {} if memo is None else memo
    if wrong := unknown_keys(config) + unreadable_keys(config):  # nothing can be built with them
        raise ConfigError(wrong)
    problems = _missing(config) + _top_level(config)
    parts, failure = _parts(config, problems, memo)
    source: PopulationSource | None = parts["population"]
    method: MergeMethod | None = parts["method"]
    aim: AimSettings | None = parts["aim"]
    relaxes = method is not None and method.merges and config.omega not in (None, 1)
    reads_texts = relaxes and aim is not None and aim.reads_texts
    for group in ("population", "aim", "evaluator", "select", "tracker"):
        problems += _own_problems(parts[group])
    experts_read = bool(method and method.reads and not method.given)
    if reads_texts or experts_read:  # texts that nobody reads need not be there
        problems += _own_problems(parts["calibration"])
    if experts_read and source and parts["calibration"]:
        problems += parts["calibration"].expert_problems(source.expert_names)
    if method and source and not _own_problems(source):
        problems += method.problems(source.expert_names, source.merged_names)
        taken_from = source.merged_names if method.needs_experts else ()
        problems += take_problems(_plain(config.take), (BASE, *taken_from))
        if relaxes and aim and not aim.problems():
            experts = len(source.merged_names)
            problems += aim.merge_problems(experts, experts if method.needs_experts else 1)
    problems += _selection_problems(parts["select"], map(str, config))
    suite = build_suite(config.benchmarks, choices["benchmarks"], problems)
    if suite and isinstance(source, GivenPopulation) and not _own_problems(source):
        problems += _specialty_problems(source, suite)
    code = {
        group: collect(problems, partial(source_digest, parts[group], f"{group}._target_"))
        for group in CODED
    }

    store = Store(Path(config.cache_dir))
    population = given = None
    if source and not _own_problems(source):
        population = collect(problems, lambda: source.resolve(store))
    if isinstance(method, Given):
        path, digests = method.path, store.root / "digests"
        given = collect(problems, lambda: resolve_model("merged", path, GIVEN_KEY, digests))
    if population:
        models = (population, given)
        layouts = store.root / LAYOUTS
        problems += _once(memo, models, lambda: misfits(*models, config.vocabulary, layouts))
    if problems:
        raise ConfigError(problems) from failure

    # What is None by now has left a problem behind.
    assert source and method and population and suite  # noqa: PT018
    return Parts(
        source=source,
        population=population,
        method=method,
        given=given,
        aim=cast(AimSettings, aim),
        calibration=parts["calibration"],
        reads_texts=reads_texts,
        suite=suite,
        evaluator=parts["evaluator"],
        tracker=parts["tracker"],
        store=store,
        code={group: digest for group, digest in code.items() if digest},
    )


def build(config: DictConfig, choices: Mapping[str, str], memo: Memo | None = None) -> Run:
    """The run that `config` describes, its given models fetched; see `check`."""
    memo = {} if memo is None else memo
    parts = check(config, choices, memo)
    population, given, suite = parts.population, parts.given, parts.suite
    if not config.plan:
        _fetch(population, given)
    own_tokens = _unlike_base(population, given, vocabulary.differs)
    merged = {given.name} if given else set(population.merged)
    digests = parts.store.root / "digests"
    calibration, method = parts.calibration, parts.method
    texts = calibration.spec(digests) if parts.reads_texts else {}
    expert_texts: dict[str, Mapping[str, Any]] = {}
    for name in population.merged if method.reads else ():
        given_file = method.given.get(name)
        digest = {"file": file_digest(given_file, digests)} if given_file else None
        expert_texts[name] = digest or calibration.of(name).spec(digests)
    keyed = suite.benchmarks or parts.reads_texts or merged & own_tokens
    if keyed or method.groundwork(population.merged) is not None:  # then there are keys
        population = population.each(lambda model: identified(model, digests))
        given = given and identified(given, digests)
    recipe = Recipe(
        population=population,
        method=parts.method,
        given=given,
        take=_plain(config.take) or {},
        omega=config.omega,
        aim=parts.aim,
        calibration=texts,
        expert_texts=expert_texts,
        suite=suite,
        tasks=_once(
            memo, ("tasks", suite), lambda: {b.name: task_spec(suite, b) for b in suite.benchmarks}
        ),
        evaluator=parts.evaluator.spec(),
        seed=config.seed,
        repeat=config.repeat,
        dtype=config.dtype or parts.source.dtype(population),
        vocabulary=config.vocabulary if merged & own_tokens else None,
        code=parts.code,
        own_companions=own_tokens | _unlike_base(population, given, companions.differ),
    )
    run = Run(
        recipe=recipe,
        plan=make_plan(recipe, parts.source.recipe(population)),
        choices=choices,
        source=parts.source,
        calibration=parts.calibration,
        evaluator=parts.evaluator,
        tracker=parts.tracker,
        store=parts.store,
        device=config.device,
        target_dtype=config.dtype or parts.source.merged_dtype,
        save_model=config.save_model,
        settings=recorded(config),
    )
    if problems := header_problems(run):
        raise ConfigError(problems)
    return run


def checked(config: DictConfig, choices: Mapping[str, str], memo: Memo | None = None) -> Run:
    """`build`, and every other check that needs no model."""
    memo = {} if memo is None else memo
    run = build(config, choices, memo)
    suite = ("checked", run.device, run.recipe.suite, run.unscored)
    if problems := _once(memo, suite, lambda: configuration_problems(run)):
        raise ConfigError(problems)
    return run


def build_tracker(config: DictConfig) -> Tracker | None:
    """The tracker alone; None where something is wrong with it, which `build` tells."""
    tracker: Tracker | None = collect([], partial(_instantiate, config, "tracker"))
    return None if _own_problems(tracker) else tracker


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def _missing(config: DictConfig) -> list[str]:
    if MISSING not in str(config):  # to look key by key takes longer
        return []
    return [
        f"{key}: has no value; set {key}=..."
        for key in sorted(OmegaConf.missing_keys(config), key=str)
    ]


def _top_level(config: DictConfig) -> list[str]:
    problems: list[str] = []
    if config.omega is not None:
        problems += number_problem("omega", config.omega, 0, 1)
    if config.dtype not in (None, *DTYPES):
        problems.append(f"dtype={config.dtype}: must be {', '.join(DTYPES)} or null")
    if not (isinstance(config.save_model, bool) or config.save_model == ADAPTER):
        problems.append(f"save_model={config.save_model}: must be true, false or {ADAPTER}")
    if not config.cache_dir.strip():
        problems.append("cache_dir=: must be a folder")
    device, _, index = str(config.device).partition(":")
    if device not in ("auto", "cpu", "cuda", "mps") or (index and not index.isdigit()):
        problems.append(f"device={config.device}: must be auto, cpu, cuda, cuda:N or mps")
    if config.vocabulary not in vocabulary.RULES:
        problems.append(f"vocabulary={config.vocabulary}: must be {' or '.join(vocabulary.RULES)}")
    if config.threads is not None and config.threads < 1:
        problems.append(f"threads={config.threads}: must be at least 1, or null")
    return problems


def _parts(
    config: DictConfig, problems: list[str], memo: Memo
) -> tuple[dict[str, Any], BaseException | None]:
    """The part of each group, None where it cannot be built, and what the last such error was."""
    parts: dict[str, Any] = {}
    reason = None
    for group in GROUPS:
        try:
            parts[group] = _part(config, group, memo)
        except ConfigError as error:
            parts[group], reason = None, error.__cause__
            problems += error.problems
        except OmegaConfBaseException as error:  # only whole does it show that it does not fit
            parts[group], reason = None, error
            written = cast("dict[str, Any]", OmegaConf.to_container(config[group], resolve=False))
            keys = [
                f"{group}.{key}={value}" for key, value in written.items() if "${" in str(value)
            ]
            problems.append(f"{', '.join(keys)}: cannot be resolved ({first_line(error)})")
    return parts, reason


def _part(config: DictConfig, group: str, memo: Memo) -> Any:
    """The same for equal settings."""
    settings = repr(OmegaConf.to_container(config[group], resolve=True))
    return _once(memo, (group, settings), lambda: _instantiate(config, group))


def _once(memo: Memo, key: Any, make: Callable[[], Any]) -> Any:
    key = repr(key)
    if key not in memo:
        memo[key] = make()
    return memo[key]


def _instantiate(config: DictConfig, group: str) -> Any:
    """ConfigError from what the class, or the import of its module, raised."""
    node = config[group]
    if not isinstance(node, DictConfig) or OmegaConf.missing_keys(node) or "_target_" not in node:
        return None
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        reason = error.__cause__ or error
        if isinstance(reason, ImportError) and reason.__cause__:  # Hydra's own, around the cause
            reason = reason.__cause__
        words = not_built(node._target_, reason)
        raise ConfigError(
            [f"{group}._target_={node._target_}: cannot be built ({words})"]
        ) from reason


def _selection_problems(selection: Selection | None, keys: Iterable[str]) -> list[str]:
    """Patterns that no key can match: keys of a method or a population are known by its option."""
    known = [*keys]
    return [
        f"select.of={pattern}: there is no such key{did_you_mean(first, known)}"
        for pattern in (selection.of if selection and not selection.problems() else ())
        if not fnmatch.filter(known, first := pattern.partition(".")[0])
    ]


def _specialty_problems(source: GivenPopulation, suite: Suite) -> list[str]:
    """Benchmarks of no suite at all: those of another suite than the run's are kept."""
    known = {benchmark.name for benchmark in suite.benchmarks} | known_benchmarks()
    named = [
        (expert, str(name))
        for expert, names in (source.specialty or {}).items()
        for name in (names if isinstance(names, list) else [names])
    ]
    return [
        f"population.specialty.{expert}={name}: there is no such benchmark"
        f"{did_you_mean(name, known) or '; there are ' + ', '.join(sorted(known))}"
        for expert, name in named
        if name not in known
    ]


def _own_problems(part: _Checked | None) -> list[str]:
    return part.problems() if part else []


def _fetch(population: Population, given: ModelRef | None) -> None:
    """Have the given models on disk: headers and companions decide what a run depends on."""
    for model in (population.base, *to_merge(population, given)):
        if model.origin or model.adapter or (model.identity or "").startswith(HUB):
            download(model)


def _unlike_base(
    population: Population,
    given: ModelRef | None,
    unlike: Callable[[Checkpoint, Checkpoint], bool],
) -> frozenset[str]:
    """The experts that are `unlike` base; one that is not on disk counts as like it."""
    if not population.base.path.is_dir():
        return frozenset()
    base = open_model(population.base)
    on_disk = [model for model in to_merge(population, given) if model.path.is_dir()]
    return frozenset(model.name for model in on_disk if unlike(base, open_model(model)))
