"""Studies: a design is locked before there are results.

    python -m aim_exp.study lock STUDY.yaml

writes STUDY.lock: the design, every job that it names with the digest of its configuration, the
items of each replicate, the code, the primary comparison and its margin. STUDY.yaml:

    name: aim_against_its_control
    question: Does AIM beat a uniform shrink of the same outputs?
    common: [population=smollm2_q4, benchmarks=held_out]   # of all jobs
    draws: [population.seed, benchmarks.items_seed]        # what a replicate's number sets
    replicates: {development: [0, 1], test: [2, 3, 4, 5, 6, 7]}
    over: [[method=task_arithmetic], [method=ties]]        # averaged over
    arms: {aim: [omega=0.4], control: [omega=0.4, aim.scaling=uniform]}
    primary: {arm: aim, against: control}
    secondary: []                                          # Holm's family, with the primary
    margin: 1.0                                            # points that do not matter
    rules: How the number of replicates is fixed, what is excluded.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from aim_exp.config.build import check
from aim_exp.config.schema import CONFIG_FOLDER, register
from aim_exp.console import error_console, print_error
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

SUFFIX = ".lock"


@dataclass(frozen=True, kw_only=True)
class Design:
    """The keys of STUDY.yaml, as the module's text explains them."""

    name: str
    question: str
    common: list[str]
    draws: list[str]
    replicates: dict[str, list[int]]
    over: list[list[str]]
    arms: dict[str, list[str]]
    primary: dict[str, str]
    secondary: list[dict[str, str]]
    margin: float
    rules: str

    def problems(self) -> list[str]:
        """What does not fit together, `key=value: why; fix` each."""
        problems = number_problem("margin", self.margin, 0, open_low=True)
        if set(self.replicates) != {"development", "test"}:
            return [*problems, "replicates: must be {development: [...], test: [...]}"]
        numbers = [number for each in self.replicates.values() for number in each]
        if len(set(numbers)) < len(numbers):
            problems.append(
                f"replicates={self.replicates}: a number stands twice; each is used once"
            )
        for contrast in (self.primary, *self.secondary):
            if set(contrast) != {"arm", "against"} or not {*contrast.values()} <= set(self.arms):
                arms = ", ".join(self.arms)
                problems.append(f"{contrast}: must be {{arm: A, against: B}}, of the arms {arms}")
        return problems


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
    package = Path(__file__).parent
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
    keys = {field.name for field in fields(Design)}
    if not isinstance(content, dict):
        raise AimError(f"{path}: not a study; see python -m aim_exp.study --help")
    given = set(content)
    if given != keys:
        wrong = [f"{key}: is missing" for key in sorted(keys - given)]
        raise ConfigError(wrong + [f"{key}: is no key of a study" for key in sorted(given - keys)])
    design = Design(**content)
    if problems := design.problems():
        raise ConfigError(problems)
    return design, content


def _jobs(design: Design) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Each job, and by benchmark what its score depends on beside the responses."""
    register()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        for replicate in (number for each in design.replicates.values() for number in each):
            draws = [f"{key}={replicate}" for key in design.draws]
            for over, settings in enumerate(design.over):
                for arm, own in design.arms.items():
                    overrides = (*design.common, *settings, *own, *draws)
                    config, suite = _composed(overrides)
                    protocol = {b.name: task_spec(suite, b) for b in suite.benchmarks}
                    digest = config_digest(config)
                    yield Job(arm, replicate, over, overrides, digest), protocol


def _composed(overrides: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
    """The resolved configuration and its suite, checked."""
    try:
        config = compose("config", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([f"{' '.join(overrides)}: {first_line(error)}"]) from error
    choices = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    try:
        suite = check(cast("DictConfig", config), choices).suite
    except ConfigError as error:
        raise ConfigError([f"{' '.join(overrides)}: {each}" for each in error.problems]) from error
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True)), suite


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when the study is locked."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m aim_exp.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lock", help="write STUDY.lock").add_argument("study", type=Path)
    given = parser.parse_args(arguments)
    try:
        path = lock(given.study)
    except AimError as error:
        print_error(error_console, str(error))
        return 1
    print(f"{path}: locked; commit it before the first test replicate")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
