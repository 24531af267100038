"""The entry point: Hydra's main, one job at a time, and what is said at the end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aim_exp.checkpoint.hub import forget_refusals
from aim_exp.cli.callbacks import SweepReport
from aim_exp.cli.commands import after_run, after_sweep, run_command, sweep_command
from aim_exp.cli.explain import explain, first_lines
from aim_exp.cli.help import help_page
from aim_exp.cli.plan_printer import PlanPrinter
from aim_exp.config.plugins import copy_sources
from aim_exp.config.schema import CONFIG_FOLDER, register
from aim_exp.console import begin_job, error_console, print_error
from aim_exp.errors import ConfigError
from aim_exp.store.records import CODE_FOLDER, RunRecord
from aim_exp.tracking import protocol as tracking

if TYPE_CHECKING:
    from aim_exp.run.run import Run

INTERRUPTED = 128 + signal.SIGINT
"""The exit status by which shells know Ctrl-C."""
SMALL_MACHINE = 4
"""Processors up to which one thread is the default: more cost time where others work too."""

log = logging.getLogger(__name__)


@dataclass
class _Process:
    """What the jobs of this process leave behind for its end."""

    failed: bool = False
    plans: PlanPrinter = field(default_factory=PlanPrinter)


_process = _Process()


def main() -> None:
    """`python run.py` and `aim-exp`: exit status 0, 1 if anything failed, 130 after Ctrl-C."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_page(), end="")
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's own printing
    _put_multirun_first(sys.argv)
    register()
    try:
        if "plan=true" in sys.argv:
            _plan_all()
        else:
            _run_all()
    except KeyboardInterrupt:
        print_error(
            error_console, "interrupted; what is done is kept: the same command goes on from there"
        )
        sys.exit(INTERRUPTED)
    sys.exit(int(_process.failed))


def _plan_all() -> None:
    """Plans need no folder; what Hydra writes must not meet the results of a run."""
    with TemporaryDirectory() as folder:
        sys.argv += [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}"]
        _run_all()


def _run_all() -> None:
    """The run, or all jobs of the sweep and its end, however it came to that."""
    try:
        _job()
    except Exception as error:  # Hydra's, or the sweep's end: a job has told its own
        if "debug=true" in sys.argv:
            raise
        known = isinstance(error, (HydraException, OmegaConfBaseException))
        print_error(error_console, first_lines(error) if known else explain(error))
        _process.failed = True
    except _SweepEnded:
        pass
    finally:
        _process.plans.sum_up()
        if SweepReport.directory:
            _process.failed |= _end_sweep(SweepReport.directory)


def _put_multirun_first(arguments: list[str]) -> None:
    """Hydra takes -m only before all overrides; people write it anywhere."""
    for flag in {"-m", "--multirun"} & set(arguments[2:]):
        arguments.remove(flag)
        arguments.insert(1, flag)


class _SweepEnded(BaseException):
    """`fail_fast`: the one kind of thing that a launcher does not catch."""


@hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name="config")
def _job(config: DictConfig) -> None:
    """One run of the configuration.

    A failure is recorded and told, not raised: a sweep goes on, and Hydra adds no words.
    """
    told = HydraConfig.get()
    choices = {group: str(choice) for group, choice in told.runtime.choices.items()}
    directory = Path(told.runtime.output_dir)
    sweep = Path(told.sweep.dir) if told.mode == RunMode.MULTIRUN else None
    _prepare_process(config.threads)
    forget_refusals()  # of the hub, in earlier jobs
    try:
        if config.plan:
            run = _checked(config, choices)
            _process.plans.show(_name(run, config), run)
        else:
            _carry_out(config, choices, directory, sweep)
    except Exception as error:
        if config.debug:
            traceback.print_exc()
        log.exception("failed")
        words = explain(error)
        if config.plan:
            print_error(error_console, _process.plans.news(words))
        else:
            print_error(error_console, words, of=_ordinal() if sweep else "")
        _process.failed = True
        if config.fail_fast and sweep:
            raise _SweepEnded from error


def _carry_out(
    config: DictConfig, choices: Mapping[str, str], directory: Path, sweep: Path | None
) -> None:
    """Check, run, record, and tell. What is heavy is imported when the checks are through."""
    from aim_exp.run.recording import completed_record, failed_record

    run: Run | None = None
    try:
        run = _checked(config, choices)
        begin_job(_ordinal() + _name(run, config) if sweep else _name(run, config))
        from aim_exp.tracking.tracked import job_info, job_outcome

        tracked = job_info(run, _name(run, config), directory, sweep)
        tracking.start(run.tracker, tracked)
        copy_sources(run.coded, directory / CODE_FOLDER)
        from aim_exp.run.pipeline import MODEL_FOLDER, Pipeline

        record = completed_record(run, Pipeline(run, directory).execute(), run_command())
    except BaseException as error:
        settings = cast("dict[str, Any]", OmegaConf.to_container(config))
        record = failed_record(run, settings, choices, explain(error), run_command())
        record.write(directory)
        if run:
            from aim_exp.tracking.tracked import job_outcome

            tracking.finish(run.tracker, job_outcome(record, directory))
        raise
    record.write(directory)
    model = directory / MODEL_FOLDER if run.save_model and run.plan.merged else None
    if model:
        from aim_exp.run.model_card import describe_model

        describe_model(model, run, record)
    _tell(run, tracked, record, directory, sweep, model)


def _checked(config: DictConfig, choices: Mapping[str, str]) -> Run:
    """The run, after every check that needs no model."""
    from aim_exp.config.build import build

    run = build(config, choices)
    if problem := _device_problem(run.device):
        raise ConfigError([problem])
    if run.recipe.suite.benchmarks:
        from aim_exp.evaluate.check import check_suite

        problems = check_suite(run.recipe.suite, download=() if config.plan else run.unscored)
        if problems:
            raise ConfigError(problems)
    return run


def _tell(
    run: Run,
    tracked: tracking.RunInfo,
    record: RunRecord,
    directory: Path,
    sweep: Path | None,
    model: Path | None,
) -> None:
    """Figure, tracker, terminal: the result is safe already."""
    from aim_exp import report
    from aim_exp.store.records import find_records
    from aim_exp.tracking.tracked import job_outcome

    # A sweep's own figures go into a paper; a job's is a glance, drawn a hundred times.
    figure = report.draw_run(record, directory, vector=sweep is None)
    others = find_records(sweep) if sweep and record.omega is not None else ()
    outcome = job_outcome(record, directory, sweep=others, figure=figure, model=model)
    tracking.finish(run.tracker, outcome)
    if sweep:
        report.show_job(record)
    else:
        report.show_run(record, directory, next_command=after_run(run))


def _end_sweep(directory: Path) -> bool:
    """The sweep's report, table and failures; whether any job failed, or there was none."""
    from aim_exp import report
    from aim_exp.store.records import find_records

    records = [record for _, record in find_records(directory)]
    if records:
        report.refresh(directory, planned=SweepReport.jobs)
        hint = after_sweep(directory, records)
        report.show_sweep(directory, planned=SweepReport.jobs, next_command=hint)
        _track_sweep(directory)
    return SweepReport.jobs == 0 or any(record.status == "failed" for record in records)


def _track_sweep(directory: Path) -> None:
    """Its report as a run beside its jobs'; not of a plan."""
    from aim_exp.config.build import build_tracker
    from aim_exp.tracking.tracked import sweep_info, sweep_outcome

    config = SweepReport.config
    if config is None or config.plan:
        return
    if tracker := build_tracker(config):
        tracking.start(tracker, sweep_info(directory, sweep_command()))
        tracking.finish(tracker, sweep_outcome(directory))


def _prepare_process(threads: int | None) -> None:
    """Threads and noise of the heavy libraries; they read the environment when imported."""
    cpus = os.cpu_count() or 1
    count = threads or (1 if cpus <= SMALL_MACHINE else cpus // 2)
    os.environ["OMP_NUM_THREADS"] = str(count)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def _name(run: Run, config: DictConfig) -> str:
    from aim_exp.config.sweep import run_name

    return run_name(run.choices["method"], run.recipe.omega, config, HydraConfig.get())


def _ordinal() -> str:
    """Which job of its sweep this is: `2 of 6: `, where the number of jobs is known."""
    number, jobs = HydraConfig.get().job.num + 1, SweepReport.jobs
    return f"{number} of {jobs}: " if jobs else f"{number}: "


def _device_problem(device: str) -> str | None:
    """Whether the device is there; the processor always is."""
    if device in ("auto", "cpu"):
        return None
    import torch

    kind, _, index = device.partition(":")
    if kind == "mps":
        there = torch.backends.mps.is_available()
    else:
        there = int(index or 0) < torch.cuda.device_count()
    return None if there else f"device={device}: torch {torch.__version__} sees none; use auto"
