"""The jobs of a sweep before any of them runs: which there are, their names, which will fail."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from aim_exp.config import axes
from aim_exp.config.build import Memo, check
from aim_exp.config.recorded import as_written
from aim_exp.errors import AimError
from aim_exp.types import Suite

Job = Sequence[str]
"""The overrides of a job."""
Composed = tuple[DictConfig, Mapping[str, str]]
"""A job's configuration, and the options chosen, by group."""


def sweep_jobs(config: DictConfig) -> list[Job] | None:
    """The jobs in their order; None where the sweeper finds its values as it goes.

    `config` is the sweep's own, as callbacks get it. The jobs are all combinations of the swept
    values, those of an experiment's file among them.
    """
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return None
    sweeper = get_class(config.hydra.sweeper._target_)  # Hydra's, which has loaded its plug-ins
    axes.teach(sweeper)
    sweeper.validate_batch_is_legal = _check_composition
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    task = OmegaConf.to_container(config.hydra.overrides.task)
    overrides = parser.parse_overrides([*params, *cast("list[str]", task)])
    try:
        (jobs,) = sweeper.split_arguments(overrides, max_batch_size=None)
    except (HydraException, ValueError):  # the sweeper says it again
        return None
    return [*jobs]


def _check_composition(sweeper: Any, jobs: Sequence[Job]) -> None:
    """What Hydra's sweeper does before it launches jobs; its own way takes 0.15 s for each."""
    composer = Composer(sweeper.config)
    for job in jobs:
        composer.job(job)


def constant_keys(jobs: Sequence[Job]) -> list[str]:
    """The keys that all jobs set to one value."""
    shared = set.intersection(*map(set, jobs))
    return [_key(override) for override in jobs[0] if override in shared]


def job_folders(config: DictConfig, jobs: Sequence[Job], first: int = 0) -> list[str]:
    """The folder of each job below the sweep's directory: its number, unless asked otherwise.

    They are numbered from `first`.
    """
    subdir = as_written(config.hydra.sweep, "subdir")
    if subdir == "${hydra.job.num}":
        return [str(number) for number, _ in enumerate(jobs, first)]
    loader = GlobalHydra.instance().config_loader()
    folders = []
    for number, job in enumerate(jobs, first):
        composed = loader.load_sweep_config(config, [*job])
        with open_dict(composed):
            composed.hydra.job.num, composed.hydra.job.id = number, f"job_id_{number}"
        HydraConfig.instance().set_config(composed)
        folders.append(str(composed.hydra.sweep.subdir))
    HydraConfig.instance().set_config(config)
    return folders


def run_name(config: DictConfig, method: str, overrides: Job, left_out: Iterable[str]) -> str:
    """What a person calls a run: method, omega, and what else was set for it.

    `left_out` are keys of no interest: of a sweep's jobs those that all set alike.
    """
    left_out = {"method", "omega", *left_out}
    omega = None
    with suppress(OmegaConfBaseException):
        omega = OmegaConf.select(config, "omega")

    def resolved(override: str) -> str:
        key, value = _key(override), override.partition("=")[2]
        shown = "$" not in value or "oc.env" in value  # what is in the environment stays there
        try:
            return override if shown else f"{key}={OmegaConf.select(config, key)}"
        except OmegaConfBaseException:  # its check says why
            return override

    others = [resolved(each) for each in overrides if _key(each) not in left_out]
    return " ".join([method, "omega=null" if omega is None else f"omega={omega:g}", *others])


def _key(override: str) -> str:
    """`density` of `density=0.2`; `+` and `++` in front, which add a key, left out."""
    return override.partition("=")[0].lstrip("+")


def sweep_problems(config: DictConfig, jobs: Sequence[Job]) -> list[str]:
    """What is wrong with the jobs' values: each problem once, with the first job that has it.

    Nothing is run or downloaded; a suite of several jobs is tried out once. What only a job's own
    turn can tell (a device, data from the hub) is left to it. Keys and types are left to Hydra,
    which refuses the whole sweep for them: then there is nothing to tell.
    """
    composer = Composer(config)
    by_problem: dict[str, list[Job]] = {}
    memo: Memo = {}
    for job in jobs:
        try:
            composed = composer.job(job)
        except (HydraException, OmegaConfBaseException):
            return []
        for problem in _job_problems(*composed, memo):
            by_problem.setdefault(problem, []).append(job)
    sweeper = get_class(config.hydra.sweeper._target_)
    sweeper.validate_batch_is_legal = lambda *_: None  # all of them were composed just now
    shared = set.intersection(*map(set, jobs))
    return [f"{problem} ({_where(bad, jobs, shared)})" for problem, bad in by_problem.items()]


def _where(bad: Sequence[Job], jobs: Sequence[Job], shared: Container[str]) -> str:
    if len(bad) == len(jobs):
        return "in every job"
    first = " ".join(override for override in bad[0] if override not in shared)
    return f"with {first}" if len(bad) == 1 else f"in {len(bad)} of {len(jobs)} jobs, first {first}"


def _job_problems(config: DictConfig, choices: Mapping[str, str], memo: Memo) -> Sequence[str]:
    try:
        return _suite_problems(check(config, choices, memo).suite, memo)
    except AimError as error:
        return str(error).splitlines()
    except OmegaConfBaseException:
        return []  # it names what Hydra sets when the job starts, as ${hydra:job.num}


def _suite_problems(suite: Suite, memo: Memo) -> Sequence[str]:
    if not suite.benchmarks:
        return ()
    from aim_exp.evaluate.check import check_suite

    key = repr(suite)
    if key not in memo:
        memo[key] = check_suite(suite)
    return memo[key]


def _as_written(config: DictConfig, key: str) -> Any:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return dict(node.items_ex(resolve=False))[name]


class Composer:
    """Configurations of jobs. Composing one takes Hydra 70 ms: the same choices, only once."""

    def __init__(self, config: DictConfig) -> None:
        self._sweep = config
        self._groups = set(config.hydra.runtime.choices)
        self._loader = GlobalHydra.instance().config_loader()
        self._parser = OverridesParser.create(self._loader)
        self._overrides: dict[str, Override] = {}
        self._composed: dict[tuple[str, ...], Composed] = {}
        self._before: list[tuple[DictConfig, str, Any]] = []
        """What the last job's values took the place of, by key."""

    def job(self, job: Job) -> Composed:
        """The job as Hydra composes it, good until the next one is asked for."""
        overrides = [self._parsed(override) for override in job]
        values = [override for override in overrides if self._sets_a_value(override)]
        config, choices = self._compose(o.input_line or "" for o in overrides if o not in values)
        self._reset()
        try:
            for value in values:
                key = value.key_or_group
                self._before.append((config, key, _as_written(config, key)))
                OmegaConf.update(config, key, value.value())
        except (OmegaConfBaseException, KeyError, TypeError):
            self._reset()
            return self._compose(job)  # Hydra says what is wrong
        return config, choices

    def _parsed(self, override: str) -> Override:
        if override not in self._overrides:
            (self._overrides[override],) = self._parser.parse_overrides([override])
        return self._overrides[override]

    def _reset(self) -> None:
        """Undo the last job's values: to copy a configuration takes longer than to check it."""
        for config, key, value in reversed(self._before):
            OmegaConf.update(config, key, value, merge=False)
        self._before.clear()

    def _compose(self, overrides: Iterable[str]) -> Composed:
        key = tuple(overrides)
        if key not in self._composed:
            config = self._loader.load_sweep_config(self._sweep, [*key])
            chosen = config.hydra.runtime.choices
            choices = {group: str(choice) for group, choice in chosen.items()}
            with open_dict(config):
                del config["hydra"]
            self._composed[key] = config, choices
        return self._composed[key]

    def _sets_a_value(self, override: Override) -> bool:
        """Whether Hydra sets a key to a value with it, once everything is composed."""
        key = override.key_or_group
        plain = override.type is OverrideType.CHANGE and override.package is None
        return plain and key not in self._groups and not key.startswith("hydra.")
