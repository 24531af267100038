"""What a tracker is given of a job and of a sweep, computed: `aim_exp.tracking` only logs it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from aim_exp.errors import AimError
from aim_exp.report import HTML, plots
from aim_exp.report.csv_files import difference_rows, result_rows
from aim_exp.report.differences import differences
from aim_exp.report.load import load
from aim_exp.report.rows import AVERAGE, Report, make_report
from aim_exp.report.settings import OF_RELAXATION, begins
from aim_exp.run.model_card import RECIPE_FILE
from aim_exp.run.run import Run
from aim_exp.store.run_record import MERGED, RunRecord, read_record
from aim_exp.store.sweeps import read_sweep
from aim_exp.tracking.protocol import Outcome, Row, RunInfo, SavedModel, Value

TAGGED = ("population", "benchmarks")
"""Groups whose choice is a tag, written as on the command line."""
CHANGE = "change/"
"""Before what is compared with the plain merge."""
PLAIN = frozenset(("omega=null", "omega=1", "omega=1.0"))
"""Of a sweep's jobs, the merges that AIM does not change."""
UNSET = (None, "", "none")
"""A setting that has no value."""


def job_info(run: Run, name: str, directory: Path, sweep: Path | None) -> RunInfo:
    """A job as it begins; `name` is for people."""
    return RunInfo(
        id=_run_id(directory),
        name=name,
        directory=directory.resolve(),
        config=_job_config(run),
        group=sweep.name if sweep else None,
        tags=_tags(run.choices),
    )


def sweep_info(directory: Path, command: str) -> RunInfo:
    """The report of a sweep: a run of its own, in the group of the sweep's jobs."""
    return RunInfo(
        id=_run_id(directory),
        name=f"report {directory.name}",
        directory=directory.resolve(),
        config={"command": command},
        kind="report",
        group=directory.name,
    )


def job_outcome(
    record: RunRecord,
    directory: Path,
    *,
    sweep: Path | None = None,
    figure: Path | None = None,
    model: Path | None = None,
) -> Outcome:
    """Of a finished or failed job of `sweep`, if it is of one; `model` is its saved model."""
    plain = _plain_merge(record, directory, sweep)
    tables = {"scores": _scores(record), "population": _models(make_report(load(directory)))}
    return Outcome(
        succeeded=record.status == "completed",
        metrics=_metrics(record) | (_changes(record, plain) if plain else {}),
        details=_details(record),
        tables=_filled(tables),
        figures={plots.FRONT: figure} if figure else {},
        model=_saved_model(model) if model else None,
    )


def sweep_outcome(directory: Path) -> Outcome:
    """Of a sweep whose report is in `directory`."""
    report = make_report(load(directory))
    jobs = report.runs.jobs
    tables = {
        "runs": _jobs(report),
        "population": [row for row in _models(report) if row["role"] != MERGED],
        "differences": difference_rows(differences(report)[:1]),
    }
    figures = {path.stem: path for path in sorted((directory / plots.FOLDER).glob("*.png"))}
    return Outcome(
        details={"jobs": len(jobs), "failed": sum(job.status == "failed" for job in jobs)},
        tables=_filled(tables),
        figures=figures,
        pages={"report": directory / HTML},
    )


def _run_id(directory: Path) -> str:
    """The same whenever something is run in the directory."""
    return hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:16]


def _tags(choices: Mapping[str, str]) -> tuple[str, ...]:
    """The method by its bare name; population and suite, often of one name, by their groups."""
    return (choices["method"], *(f"{group}={choices[group]}" for group in TAGGED))


def _job_config(run: Run) -> dict[str, Any]:
    """What runs are grouped and plotted by, under plain names; `settings` is everything.

    `omega_axis` is omega as a number: 1, which gives the same model, for the plain merge.
    """
    settings, recipe = run.settings, run.recipe
    relaxed = recipe.omega is not None
    return {
        **_fields(settings["method"]),
        **(_fields(settings["aim"]) if relaxed else {}),
        "method": run.choices["method"],
        "omega": recipe.effective_omega,
        "omega_axis": recipe.effective_omega if relaxed else 1.0,
        "experts": "+".join(recipe.population.merged),
        "population": run.choices["population"],
        "calibration": run.choices["calibration"] if relaxed else None,
        "suite": run.choices["benchmarks"],
        "seed": recipe.seed,
        "dtype": recipe.dtype,
        **({"code": dict(recipe.code)} if recipe.code else {}),
        "settings": settings,
    }


def _fields(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name != "_target_"}


def _metrics(record: RunRecord) -> dict[str, float | bool]:
    """What is known of the merged model's scores and of what follows from them."""
    standing, merged = record.standing, record.merged
    scores = merged.scores if merged else {}
    metrics: dict[str, float | bool | None] = {
        "average": standing.average,
        "normalised_average": standing.normalised_average,
        "gain_over_best_member": standing.gain_over_best_member,
        "hypervolume": standing.hypervolume,
        "hypervolume_gain": standing.hypervolume_gain,
        "hypervolume_gain_population": standing.hypervolume_gain_population,
        "on_front": None if standing.on_front is None else MERGED in standing.on_front,
        **{f"score/{name}": score.value for name, score in scores.items()},
    }
    return {name: value for name, value in metrics.items() if value is not None}


def _details(record: RunRecord) -> dict[str, Value]:
    """`error` is there even where there is none: an earlier attempt may have had one."""
    scores = record.merged.scores if record.merged else {}
    errors = {f"stderr/{name}": score.stderr for name, score in scores.items()}
    return {
        "status": record.status,
        "error": record.error,
        **{name: error for name, error in errors.items() if error is not None},
        **{f"timings/{name}": seconds for name, seconds in record.timings.items()},
    }


def _plain_merge(record: RunRecord, directory: Path, sweep: Path | None) -> RunRecord | None:
    """The same merge without AIM, if a listed job of the sweep has finished it already.

    By what the jobs were asked for: to read all their records would be ever more work.
    """
    if record.omega == 1:  # it is the same model
        return record
    listing = read_sweep(sweep) if sweep and record.relaxed else None
    if not sweep or not listing:
        return None
    jobs = {job.name: job.overrides for job in listing.jobs}
    own = _unrelaxed(jobs.get(os.path.relpath(directory, sweep), ()))
    members = [(model.name, model.keys) for model in record.members]
    for name, overrides in jobs.items():
        if PLAIN.intersection(overrides) and _unrelaxed(overrides) == own:
            with suppress(AimError):  # not begun
                other = read_record(sweep / name)
                same = members == [(model.name, model.keys) for model in other.members]
                if same and other.standing.average is not None:
                    return other
    return None


def _unrelaxed(overrides: Sequence[str]) -> list[str]:
    """Those that a plain merge depends on, too."""
    relaxing = ("omega", *OF_RELAXATION)
    return [each for each in overrides if not begins(each.partition("=")[0], relaxing)]


def _changes(record: RunRecord, plain: RunRecord) -> dict[str, float]:
    """Differences to the plain merge, in the units of the quantities themselves."""
    after, before = _metrics(record), _metrics(plain)
    names = ["average", "hypervolume_gain", *(name for name in after if name.startswith("score/"))]
    return {
        f"{CHANGE}{name.removeprefix('score/')}": after[name] - before[name]
        for name in names
        if name in after and name in before
    }


def _scores(record: RunRecord) -> list[Row]:
    """Of the merged model, a row per benchmark."""
    scores = record.merged.scores if record.merged else {}
    return [
        {
            "benchmark": name,
            "task": record.benchmarks[name].task,
            "metric": score.metric,
            "score": score.value,
            "stderr": score.stderr,
            "items": score.n,
        }
        for name, score in scores.items()
    ]


def _models(report: Report) -> list[Row]:
    """A row per model of every group, merges last."""
    return [
        {
            "model": f"{row.model} [{group.number}]" if group.title else row.model,
            "role": row.role,
            "on_front": row.on_front,
            **{
                name: row.estimates[name].mean if name in row.estimates else None
                for name in (AVERAGE, *report.benchmarks)
            },
        }
        for group in report.groups
        if group.benchmarks
        for row in (*group.members, *group.references, *group.merges)
    ]


def _jobs(report: Report) -> list[Row]:
    """The rows of `results.csv`; a column with numbers and words is one of words."""
    columns, rows = result_rows(report)
    texts = {
        name
        for name in columns
        if any(isinstance(row.get(name), str) and row[name] not in UNSET for row in rows)
    }
    return [{name: _value(row.get(name), name in texts) for name in columns} for row in rows]


def _value(value: Any, is_text: bool) -> Value:
    if value in UNSET:
        return None
    return str(value) if is_text else value


def _filled(tables: Mapping[str, Sequence[Row]]) -> dict[str, Sequence[Row]]:
    return {name: rows for name, rows in tables.items() if rows}


def _saved_model(folder: Path) -> SavedModel:
    """With what `RECIPE_FILE` says of how it was made."""
    recipe = OmegaConf.to_container(OmegaConf.load(folder / RECIPE_FILE))
    return SavedModel(folder, cast("dict[str, Any]", recipe))
