"""The jobs of a sweep before any of them runs: which there are, their names, which will fail."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from aim_exp.config.build import check
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
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    task = OmegaConf.to_container(config.hydra.overrides.task)
    overrides = parser.parse_overrides([*params, *cast("list[str]", task)])
    try:
        (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    except HydraException:  # the sweeper says it again
        return None
    return [*jobs]


def constant_keys(jobs: Sequence[Job]) -> list[str]:
    """The keys that all jobs set to one value."""
    shared = set.intersection(*map(set, jobs))
    return [_key(override) for override in jobs[0] if override in shared]


def run_name(method: str, omega: float | None, config: DictConfig, told: HydraConf) -> str:
    """What a person calls a run: method, omega, and what else was set for it.

    Of a sweep's jobs, what varies among them. `told` is Hydra's own configuration: what it leaves
    out of `override_dirname` is set in `conf/config.yaml`, and for a sweep by `SweepReport`.
    """
    left_out = {"method", "omega", *told.job.config.override_dirname.exclude_keys}

    def resolved(override: str) -> str:
        key, value = _key(override), override.partition("=")[2]
        return f"{key}={OmegaConf.select(config, key)}" if "$" in value else override

    others = [resolved(each) for each in told.overrides.task if _key(each) not in left_out]
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
    composer, suites = _Composer(config), _Suites()
    found: dict[str, list[Job]] = {}
    for job in jobs:
        try:
            composed = composer.job(job)
        except (HydraException, OmegaConfBaseException):
            return []
        for problem in _job_problems(*composed, suites):
            found.setdefault(problem, []).append(job)
    shared = set.intersection(*map(set, jobs))
    return [f"{problem} ({_where(bad, jobs, shared)})" for problem, bad in found.items()]


def _where(bad: Sequence[Job], jobs: Sequence[Job], shared: Container[str]) -> str:
    if len(bad) == len(jobs):
        return "in every job"
    first = " ".join(override for override in bad[0] if override not in shared)
    return f"with {first}" if len(bad) == 1 else f"in {len(bad)} of {len(jobs)} jobs, first {first}"


def _job_problems(config: DictConfig, choices: Mapping[str, str], suites: _Suites) -> Sequence[str]:
    try:
        return suites.problems(check(config, choices).suite)
    except AimError as error:
        return str(error).splitlines()
    except OmegaConfBaseException:
        return []  # it names what Hydra sets when the job starts, as ${hydra:job.num}


class _Suites:
    """What is wrong with the suites so far, each found out once."""

    def __init__(self) -> None:
        self._seen: list[tuple[Suite, Sequence[str]]] = []

    def problems(self, suite: Suite) -> Sequence[str]:
        """The suite's, where anything is scored."""
        if not suite.benchmarks:
            return ()
        for seen, problems in self._seen:
            if seen == suite:
                return problems
        from aim_exp.evaluate.check import check_suite

        self._seen.append((suite, check_suite(suite)))
        return self._seen[-1][1]


class _Composer:
    """Configurations of jobs. Composing one takes Hydra 70 ms: the same choices, only once."""

    def __init__(self, config: DictConfig) -> None:
        self._sweep = config
        self._groups = set(config.hydra.runtime.choices)
        self._loader = GlobalHydra.instance().config_loader()
        self._parser = OverridesParser.create(self._loader)
        self._composed: dict[tuple[str, ...], Composed] = {}

    def job(self, job: Job) -> Composed:
        """The job as Hydra composes it."""
        overrides = self._parser.parse_overrides([*job])
        values = [override for override in overrides if self._sets_a_value(override)]
        config, choices = self._compose(o.input_line or "" for o in overrides if o not in values)
        config = copy.deepcopy(config)
        try:
            for value in values:
                OmegaConf.update(config, value.key_or_group, value.value())
        except OmegaConfBaseException:
            return self._compose(job)  # Hydra says what is wrong
        return config, choices

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
