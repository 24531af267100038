"""The design of a study, and its lock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aim_exp.config.build import Memo, check
from aim_exp.config.folder import CONFIG_FOLDER
from aim_exp.config.schema import register
from aim_exp.config.sweep import Composer
from aim_exp.errors import AimError, ConfigError, first_line, number_problem
from aim_exp.evaluate.spec import task_spec
from aim_exp.store.provenance import provenance
from aim_exp.store.study_lock import (
    LOCK_VERSION,
    Contrast,
    Job,
    StudyLock,
    config_digest,
    files_digest,
)
from aim_exp.types import Suite

SUFFIX = ".lock"


@dataclass(frozen=True, kw_only=True)
class Design:
    """The keys of STUDY.yaml, as the package's text explains them.

    After `first` test replicates the deviation of the primary difference fixes their number.
    """

    name: str
    question: str
    common: list[str]
    draws: list[str]
    replicates: dict[str, list[int]]
    over: list[list[str]]
    arms: dict[str, list[str] | list[list[str]]]
    primary: dict[str, str]
    secondary: list[dict[str, str]]
    margin: float
    rules: str
    first: int = 6

    def problems(self) -> list[str]:
        """What does not fit together, `key=value: why; fix` each."""
        problems = number_problem("margin", self.margin, 0, open_low=True)
        problems += number_problem("first", self.first, 2)
        if set(self.replicates) != {"development", "test"}:
            return [*problems, "replicates: must be {development: [...], test: [...]}"]
        numbers = [number for each in self.replicates.values() for number in each]
        if len(set(numbers)) < len(numbers):
            problems.append(
                f"replicates={self.replicates}: a number stands twice; each is used once"
            )
        for arm, own in self.arms.items():
            lists = isinstance(own, list) and any(isinstance(each, list) for each in own)
            if not isinstance(own, list) or (lists and len(own) != len(self.over)):
                problems.append(
                    f"arms.{arm}={own}: must be a list of overrides, or one for each of the "
                    f"{len(self.over)} entries of over"
                )
        for contrast in (self.primary, *self.secondary):
            if set(contrast) != {"arm", "against"} or not {*contrast.values()} <= set(self.arms):
                arms = ", ".join(self.arms)
                problems.append(f"{contrast}: must be {{arm: A, against: B}}, of the arms {arms}")
        return problems

    def settings(self, arm: str, over: int) -> list[str]:
        """An arm's own overrides, and those of the entry of `over`."""
        own = self.arms[arm]
        mine = own[over] if own and isinstance(own[0], list) else own
        return [*self.over[over], *cast("list[str]", mine)]


def lock(path: Path) -> Path:
    """Lock the study in the file; the lock's path. Raises AimError, ConfigError with all problems.

    Every job's configuration is composed and checked; nothing is trained or scored.
    """
    target = path.with_suffix(SUFFIX)
    if target.exists():
        raise AimError(f"{target}: is locked already; another design is another study")
    design, content = read_design(path)
    jobs: list[Job] = []
    items: dict[str, dict[str, Any]] = {}
    for job, protocol in _jobs(design):
        jobs.append(job)
        if items.setdefault(str(job.replicate), protocol) != protocol:
            raise ConfigError([f"arms.{job.arm}: is scored on other items than the arms before it"])
    about = provenance()
    package = Path(__file__).parents[1]
    study = StudyLock(
        version=LOCK_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        name=design.name,
        design=content,
        primary=Contrast(**design.primary),
        secondary=tuple(Contrast(**each) for each in design.secondary),
        margin=design.margin,
        development=tuple(design.replicates["development"]),
        test=tuple(design.replicates["test"]),
        jobs=tuple(jobs),
        items=items,
        code=files_digest([package, CONFIG_FOLDER], ["*.py", "*.yaml"]),
        commit=about["git_commit"],
        dirty=about["git_dirty"],
    )
    study.write(target)
    return target


def read_design(path: Path) -> tuple[Design, dict[str, Any]]:
    """The design in the file, and the file's content. Raises AimError, ConfigError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise AimError(f"{path}: not a readable study ({error})") from error
    keys = {field.name: field.default is MISSING for field in fields(Design)}
    if not isinstance(content, dict):
        raise AimError(f"{path}: not a study; see python -m aim_exp.study --help")
    given = set(content)
    needed = {key for key, is_needed in keys.items() if is_needed}
    if wrong := [f"{key}: is missing" for key in sorted(needed - given)] + [
        f"{key}: is no key of a study" for key in sorted(given - set(keys))
    ]:
        raise ConfigError(wrong)
    design = Design(**content)
    if problems := design.problems():
        raise ConfigError(problems)
    return design, content


def _jobs(design: Design) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Each job, and by benchmark what its score depends on beside the responses."""
    register()
    memo: Memo = {}
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        composer = Composer(compose("config", return_hydra_config=True))
        for replicate in (number for each in design.replicates.values() for number in each):
            draws = [f"{key}={replicate}" for key in design.draws]
            for over in range(len(design.over)):
                for arm in design.arms:
                    overrides = (*design.common, *design.settings(arm, over), *draws)
                    config, suite = _composed(composer, overrides, memo)
                    protocol = {b.name: task_spec(suite, b) for b in suite.benchmarks}
                    digest = config_digest(config)
                    yield Job(arm, replicate, over, overrides, digest), protocol


def _composed(
    composer: Composer, overrides: tuple[str, ...], memo: Memo
) -> tuple[dict[str, Any], Suite]:
    """The resolved configuration and its suite, checked."""
    try:
        config, choices = composer.job(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([f"{' '.join(overrides)}: {first_line(error)}"]) from error
    try:
        suite = check(config, choices, memo).suite
    except ConfigError as error:
        raise ConfigError([f"{' '.join(overrides)}: {each}" for each in error.problems]) from error
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True)), suite
