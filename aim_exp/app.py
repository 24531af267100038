"""The entry point: Hydra's main, one job, and the end of a sweep."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aim_exp.checkpoint.hub import forget_refusals
from aim_exp.cli.callbacks import Launch
from aim_exp.cli.commands import (
    after_detaching,
    after_run,
    after_sweep,
    run_command,
    sweep_command,
    task_overrides,
)
from aim_exp.cli.explain import explain, first_lines, wrong_override
from aim_exp.cli.plan_printer import PLANS
from aim_exp.config.build import build_tracker, checked
from aim_exp.config.folder import CONFIG_FOLDER
from aim_exp.config.outside import copy_config_files, copy_sources, outside_config_files
from aim_exp.config.recorded import hide_user_info, recorded, without_user_info
from aim_exp.config.schema import register
from aim_exp.config.sweep import run_name
from aim_exp.console import begin_job, console, error_console, print_error
from aim_exp.errors import AimError
from aim_exp.launchers.stages import raise_failure
from aim_exp.launchers.task import prepare_process
from aim_exp.run.recording import completed_record, initial_record, planned_record
from aim_exp.store.processes import note_work, using
from aim_exp.store.run_record import SHARED_FOLDER, RunRecord, read_record
from aim_exp.store.sweeps import STOP_FILE, read_sweep
from aim_exp.tracking import protocol as tracking

if TYPE_CHECKING:
    from aim_exp.run.run import Run

DETACH = "--detach"
"""Hand a sweep's jobs in, and end."""
PLANNER = "hydra.launcher._target_=hydra_plugins.aim_exp_launcher.SweepLauncher"
"""Hydra's own composes every job anew, which takes longer than to plan it."""
INTERRUPTED = 128 + signal.SIGINT
"""The exit status by which shells know Ctrl-C."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that one run needs, in whatever process it is carried out."""

    config: DictConfig
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    command: str
    """What repeats it by itself."""
    name: str
    """For people: `ties omega=0.4`."""
    directory: Path
    sweep: Path | None = None
    number: int | None = None
    """In its sweep, from 0."""
    config_files: tuple[Path, ...] = ()
    """Of the chosen options, those that are not the package's."""

    @property
    def shared(self) -> Path:
        """Where what it has in common with other jobs of its sweep is kept."""
        return (self.sweep or self.directory) / SHARED_FOLDER

    @property
    def ordinal(self) -> str:
        """Which job of its sweep this is: `2 of 6: `, where the number of jobs is known."""
        if self.sweep is None or self.number is None:
            return ""
        listing = read_sweep(self.sweep)
        of = f" of {len(listing.jobs)}" if listing and listing.jobs else ""
        return f"{self.number + 1}{of}: "


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `completed`, `failed`, or `not run` where its sweep was stopped before."""

    status: str
    error: str | None = None


def main() -> None:
    """A run or a sweep: exit status 0, 1 if anything failed, 130 after Ctrl-C."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's own printing
    _put_multirun_first(sys.argv)
    sys.argv[1:] = ["hydra.launcher.detach=true" if a == DETACH else a for a in sys.argv[1:]]
    register()
    try:
        failed = _plan() if _is_plan(sys.argv) else _launch()
    except KeyboardInterrupt:
        print_error(
            error_console, "interrupted; what is done is kept: the same command goes on from there"
        )
        sys.exit(INTERRUPTED)
    sys.exit(int(failed))


def job(config: DictConfig) -> Outcome:
    """What Hydra calls for each job, in this process or in a launcher's workers."""
    settings = HydraConfig.get()
    sweep = Path(settings.sweep.dir) if settings.mode == RunMode.MULTIRUN else None
    choices = {group: str(choice) for group, choice in settings.runtime.choices.items()}
    return run_job(
        Job(
            config=config,
            choices=choices,
            overrides=tuple(task_overrides()),
            command=run_command(),
            name=_name(config, choices, settings),
            directory=Path(settings.runtime.output_dir),
            sweep=sweep,
            number=settings.job.num if sweep else None,
            config_files=outside_config_files(settings.runtime.config_sources, choices),
        )
    )


def _name(config: DictConfig, choices: Mapping[str, str], settings: HydraConf) -> str:
    """What `override_dirname` leaves out, in `conf/config.yaml` or by `Launch`, is not in it."""
    left_out = settings.job.config.override_dirname.exclude_keys
    task = cast("list[str]", OmegaConf.to_container(settings.overrides.task))  # unresolved
    return run_name(config, choices.get("method", ""), task, left_out)


def run_job(job: Job) -> Outcome:
    """One run. A failure is recorded and told, not raised: a sweep goes on."""
    threads = _value(job.config, "threads")
    prepare_process(threads if isinstance(threads, int) and threads > 0 else None)
    forget_refusals()  # of the hub, in earlier jobs
    if _value(job.config, "plan"):
        PLANS.plan(job.name, job.config, job.choices)
        return Outcome("completed")
    if job.sweep and (job.sweep / STOP_FILE).exists():
        return Outcome("not run")
    try:
        _carry_out(job)
    except Exception as error:
        if _value(job.config, "debug"):
            traceback.print_exc()
        log.exception("failed")
        words = explain(error)
        print_error(error_console, words, of=job.ordinal)
        if _value(job.config, "fail_fast") and job.sweep:
            (job.sweep / STOP_FILE).write_text(f"{job.name}: {words}\n")
        return Outcome("failed", words)
    return Outcome("completed")


def run_experiment(*overrides: str) -> RunRecord:
    """One run from Python, as `python run.py OVERRIDES`; its record, whose run may have failed.

    Raises hydra's errors where the overrides cannot be composed.
    """
    register()
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = hydra.compose("config", [*overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    directory = Path(config.hydra.run.dir).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    settings = HydraConfig.get()
    choices = {group: str(choice) for group, choice in settings.runtime.choices.items()}
    plain = DictConfig({key: config[key] for key in config if key != "hydra"}, flags=None)
    run_job(
        Job(
            config=plain,
            choices=choices,
            overrides=overrides,
            command=run_command(),
            name=_name(config, choices, settings),
            directory=directory,
        )
    )
    return read_record(directory)


@dataclass
class _Life:
    """A job between its start and its end."""

    record: RunRecord
    run: Run | None = None
    tracked: tracking.RunInfo | None = None


@contextmanager
def _recorded(job: Job) -> Iterator[_Life]:
    """The life of a job: its record says `running` first, and how it ended, whatever happens."""
    with suppress(OmegaConfBaseException, TypeError):  # of a key that the checks will name
        note_work(Path(job.config.cache_dir), job.sweep or job.directory)
    command = without_user_info(job.command)
    overrides = tuple(map(without_user_info, job.overrides))
    life = _Life(initial_record(recorded(job.config), job.choices, overrides, command))
    life.record.write(job.directory)
    hide_user_info(job.directory / ".hydra", job.sweep)
    try:
        yield life
    except SystemExit:  # a cluster puts it back into its queue, where it goes on: still running
        raise
    except BaseException as error:
        life.record = replace(life.record, status="failed", error=explain(error))
        life.record.write(job.directory)
        if life.run and life.tracked:
            from aim_exp.tracking.tracked import job_outcome

            outcome = job_outcome(life.record, job.directory)
            tracking.finish(life.run.tracker, outcome, job.directory)
        raise
    life.record.write(job.directory)


def _carry_out(job: Job) -> None:
    """Check, run, record, and tell. What is heavy is imported when the checks are through."""
    with _recorded(job) as life:
        tracking.prepare(build_tracker(job.config))
        run = life.run = checked(job.config, job.choices)
        life.record = planned_record(life.record, run)
        life.record.write(job.directory)  # from here on it says what it rests on
        if job.sweep:
            raise_failure(job.sweep, run.plan.stages)
        begin_job(job.ordinal + job.name)
        if run.tracker:
            from aim_exp.tracking.tracked import job_info

            life.tracked = job_info(run, job.name, job.directory, job.sweep)
            tracking.start(run.tracker, life.tracked)
        copy_sources(run.coded, job.shared / "code")
        copy_config_files(job.config_files, job.shared / "config")
        from aim_exp.run.pipeline import Pipeline

        with using(run.store.root, run.plan.names):
            results = Pipeline(run, job.directory).execute()
            life.record = completed_record(life.record, run, results, job.directory, job.shared)
    _tell(job, run, life.record)


def _value(config: DictConfig, key: str) -> Any:
    """Of a key that may have been deleted, or cannot be resolved: None."""
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def _tell(job: Job, run: Run, record: RunRecord) -> None:
    """Model card, figure, tracker, terminal: the result is safe already."""
    from aim_exp import report
    from aim_exp.run.pipeline import MODEL_FOLDER

    model = job.directory / MODEL_FOLDER if run.save_model and run.recipe.method.merges else None
    if model:
        from aim_exp.run.model_card import describe_model

        describe_model(model, run, record)
    # A sweep's own figures go into a paper; a job's is a glance, drawn a hundred times.
    figure = report.draw_run(job.directory, vector=job.sweep is None)
    if run.tracker:
        from aim_exp.tracking.tracked import job_outcome

        outcome = job_outcome(record, job.directory, sweep=job.sweep, figure=figure, model=model)
        tracking.finish(run.tracker, outcome, job.directory)
    if job.sweep:
        report.show_job(record)
    else:
        report.show_run(job.directory, next_command=after_run(run))


def _plan() -> bool:
    """Plans need no folder; what Hydra writes must not meet the results of a run."""
    with TemporaryDirectory() as folder:
        sys.argv += [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", PLANNER]
        failed = _hydra()
    PLANS.sum_up()
    return failed or PLANS.failed


def _launch() -> bool:
    """The run, or all jobs of a sweep and its end, however it came to that. Did any fail?"""
    failed = False
    try:
        failed = _hydra()
    finally:
        if Launch.sweep and Launch.detached:
            console.print(after_detaching(Launch.sweep), soft_wrap=True, markup=False)
        elif Launch.sweep:
            failed |= _end_sweep(Launch.sweep)
    if Launch.sweep is None and Launch.directory is not None and not failed:
        failed = not _is_completed(Launch.directory)
    return failed


def _is_completed(directory: Path) -> bool:
    """Whether the run's record says so: one that could not be written has been told of."""
    try:
        return read_record(directory).status == "completed"
    except AimError:
        return False


def _hydra() -> bool:
    """Compose and launch; whether that failed: a job tells its own failure."""
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name="config")(job)()
    except Exception as error:
        if "debug=true" in sys.argv:
            raise
        known = isinstance(error, (HydraException, OmegaConfBaseException))
        words = first_lines(error) if known else explain(error)
        print_error(error_console, wrong_override(error, sys.argv[1:]) or words)
        return True
    return False


def _end_sweep(directory: Path) -> bool:
    """The sweep's report, table and failures; whether any job failed, or there was none."""
    from aim_exp import report

    runs = report.refresh(directory)
    if runs.jobs:
        report.show_sweep(runs, directory, next_command=after_sweep(directory, runs))
        _track_sweep(directory)
    return not runs.jobs or any(job.status != "completed" for job in runs.jobs)


def _track_sweep(directory: Path) -> None:
    """Its report as a run beside its jobs'."""
    from aim_exp.tracking.tracked import sweep_info, sweep_outcome

    if Launch.config is not None and (tracker := build_tracker(Launch.config)):
        tracking.start(tracker, sweep_info(directory, sweep_command()))
        tracking.finish(tracker, sweep_outcome(directory), directory)


def _is_plan(arguments: list[str]) -> bool:
    """Whether `plan` is set to what YAML and OmegaConf take for true; the last one counts."""
    values = [value for key, _, value in (a.partition("=") for a in arguments)
              if key.lstrip("+") == "plan"]  # fmt: skip
    return bool(values) and values[-1].strip("'\"").lower() in ("true", "yes", "on", "1", "y", "t")


def _put_multirun_first(arguments: list[str]) -> None:
    """Hydra takes -m only before all overrides; people write it anywhere."""
    for flag in {"-m", "--multirun"} & set(arguments[2:]):
        arguments.remove(flag)
        arguments.insert(1, flag)
