"""Shared stages: what several jobs need, done before them by workers of its own.

No job then waits for another one's stage with a GPU in its hands. A shared stage is a task without
number and without a row in the report; its folder is `shared/stages/NAME-KEY/` of the sweep's.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from aim_exp.cli.explain import explain
from aim_exp.config.build import checked
from aim_exp.console import begin_job, error_console, print_error
from aim_exp.errors import AimError
from aim_exp.launchers.task import prepare_process
from aim_exp.run.plan import Stage
from aim_exp.run.run import Run
from aim_exp.store.processes import note_work, using
from aim_exp.store.stage_spec import content_key, file_name
from aim_exp.store.sweeps import FAILED_FILE, STAGES_FOLDER, STOP_FILE

KEY_DIGITS = 12

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedStage:
    """A stage to do, and the overrides of a job that needs it."""

    folder: str
    """Below the sweep's directory."""
    what: str
    overrides: tuple[str, ...]


def levels(jobs: Iterable[tuple[Sequence[str], Run]]) -> list[list[SharedStage]]:
    """The shared stages of all jobs that are not in the store, each behind those it needs.

    Those of a level have no need of each other: they go together.
    """
    by_level: list[list[SharedStage]] = []
    made: list[set[str]] = []
    """By level, the keys of what its stages make."""
    level_of: dict[str, int] = {}
    for overrides, run in jobs:
        for stage in run.plan.stages:
            folder = stage_folder(stage)
            if not stage.shared or folder in level_of or all(map(run.store.has, stage.entries)):
                continue
            needed = [level_of.get(stage_folder(need), -1) for need in stage.needs]
            level = max(needed, default=-1) + 1
            # Those that add to the same, as a model on other benchmarks: one behind the other.
            keys = {stage.key, *(entry.key for entry in stage.entries)}
            while level < len(by_level) and keys & made[level]:
                level += 1
            if level == len(by_level):
                by_level.append([])
                made.append(set())
            by_level[level].append(SharedStage(folder, stage.what, tuple(overrides)))
            made[level] |= keys
            level_of[folder] = level
    return by_level


def stage_folder(stage: Stage) -> str:
    """Of a shared stage, below the sweep's directory."""
    keys = [entry.key for entry in stage.entries]
    key = content_key("stage", 1, [stage.key, keys])[:KEY_DIGITS]
    return f"{STAGES_FOLDER}/{file_name(stage.name.replace(' ', '_'))}-{key}"


def shared_stage(config: DictConfig) -> None:
    """What Hydra calls for a shared stage. A failure is left in its folder, for those in need."""
    settings = HydraConfig.get()
    directory, sweep = Path(settings.runtime.output_dir), Path(settings.sweep.dir)
    choices = {group: str(choice) for group, choice in settings.runtime.choices.items()}
    prepare_process(config.threads)
    if (sweep / STOP_FILE).exists():
        return
    try:
        _carry_out(config, choices, directory, sweep)
    except Exception as error:
        if config.debug:
            traceback.print_exc()
        log.exception("failed")
        fail(directory, explain(error))
        print_error(error_console, explain(error))
        if config.fail_fast:
            (sweep / STOP_FILE).write_text(f"{explain(error)}\n")


def _carry_out(
    config: DictConfig, choices: Mapping[str, str], directory: Path, sweep: Path
) -> None:
    run = checked(config, choices)
    note_work(run.store.root, sweep)
    folder = str(directory.relative_to(sweep.absolute()))
    (stage,) = (each for each in run.plan.stages if stage_folder(each) == folder)
    begin_job(stage.what)
    raise_failure(sweep, stage.needs)
    from aim_exp.run.pipeline import Pipeline

    pipeline = Pipeline(run, directory)
    with using(run.store.root, run.plan.names):
        for each in {each.name: each for each in (*_behind(stage), stage)}.values():
            pipeline.carry_out(each)


def fail(directory: Path, words: str) -> None:
    """Leave word that the shared stage of that folder failed."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FAILED_FILE).write_text(words)


def raise_failure(sweep: Path, stages: Iterable[Stage]) -> None:
    """AimError with the words of the first of the stages that failed in this sweep."""
    for stage in stages:
        file = sweep / stage_folder(stage) / FAILED_FILE
        if file.exists():
            raise AimError(file.read_text())


def _behind(stage: Stage) -> Iterator[Stage]:
    """All that it rests on, each behind those it needs."""
    for needed in stage.needs:
        yield from _behind(needed)
        yield needed
