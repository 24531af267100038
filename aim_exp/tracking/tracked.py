"""What a tracker is given of a job and of a sweep, computed: `aim_exp.tracking` only logs it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from aim_exp.report import HTML
from aim_exp.report.board import AVERAGE, Board, population_board, run_board
from aim_exp.report.compare.baselines import find_pairs
from aim_exp.report.compare.comparison import Comparison, Difference, compare_runs
from aim_exp.report.figures import CAPTIONS, FOLDER, FRONT
from aim_exp.report.models import merge_metrics
from aim_exp.report.parallel import parallel_coordinates
from aim_exp.report.results import Results, collect, join
from aim_exp.report.results_csv import NAMED, job_rows
from aim_exp.run.model_card import RECIPE_FILE
from aim_exp.run.run import Run
from aim_exp.store.records import RunRecord
from aim_exp.tracking.protocol import Outcome, RunInfo, SavedModel, Table, Value

TAGGED = ("population", "benchmarks")
"""Groups whose choice is a tag, written as on the command line."""
CHANGE = "change/"
"""Before what is compared with the plain merge."""
NULLS = (None, "null")
"""A setting that has no value."""


Found = Sequence[tuple[Path, RunRecord]]
"""Records with their folders."""


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
    sweep: Found = (),
    figure: Path | None = None,
    model: Path | None = None,
) -> Outcome:
    """Of a finished or failed job; its twin may be in `sweep`; `model` is its saved model."""
    plain = _plain_twin(record, directory, sweep)
    tables = {"scores": _scores(record), "population": _models(run_board(record))}
    return Outcome(
        succeeded=record.status == "completed",
        metrics=_metrics(record) | (_changes(record, plain) if plain else {}),
        details=_details(record),
        tables=_filled(tables),
        figures={FRONT: figure} if figure else {},
        model=_saved_model(model) if model else None,
    )


def sweep_outcome(directory: Path) -> Outcome:
    """Of a sweep whose report is in `directory`."""
    results = collect(directory)
    comparison = compare_runs(results)
    tables = {"runs": _table(_jobs(results)), "population": _models(population_board(results))}
    if comparison:
        tables["differences"] = _table(_differences(comparison))
    drawn = {name: directory / FOLDER / f"{name}.png" for name in CAPTIONS}
    chart = parallel_coordinates(results)
    return Outcome(
        details={"jobs": len(results.jobs), "failed": len(results.failed)},
        tables=_filled(tables),
        figures={name: path for name, path in drawn.items() if path.exists()},
        charts={"parallel_coordinates": chart} if chart else {},
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
        "omega": recipe.omega,
        "omega_axis": recipe.omega if relaxed else 1.0,
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
    found = merge_metrics(record) | _prefixed("score", record.scores or {})
    return {name: value for name, value in found.items() if value is not None}


def _details(record: RunRecord) -> dict[str, Value]:
    """`error` is there even where there is none: an earlier attempt may have had one."""
    errors = {name: error for name, error in (record.stderr or {}).items() if error is not None}
    return {
        "status": record.status,
        "error": record.error,
        **_prefixed("stderr", errors),
        **_prefixed("timings", record.timings),
    }


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


def _can_have_twin(record: RunRecord) -> bool:
    return record.omega is not None and bool(record.scores)


def _plain_twin(record: RunRecord, directory: Path, sweep: Found) -> RunRecord | None:
    """The same merge without AIM, if a job of the sweep has finished it already."""
    if not _can_have_twin(record):
        return None
    if record.omega == 1:  # it is the same model
        return record
    jobs = [*((folder, job) for folder, job in sweep if job.omega is None), (directory, record)]
    pairs = find_pairs(join(jobs, [folder for folder, _ in jobs])).pairs
    return next((twin.job.record for job, twin in pairs if job.directory == directory), None)


def _changes(record: RunRecord, plain: RunRecord) -> dict[str, float]:
    """Differences to the plain merge, in the units of the quantities themselves."""
    after, before = _metrics(record), _metrics(plain)
    names = {name: name for name in ("average", "hypervolume_gain")}
    names |= {name: f"score/{name}" for name in record.scores or {}}
    return {
        f"{CHANGE}{name}": after[key] - before[key]
        for name, key in names.items()
        if key in after and key in before
    }


def _scores(record: RunRecord) -> Table:
    """Of the merged model, a row per benchmark."""
    scores, errors, items = record.scores or {}, record.stderr or {}, record.n_items or {}
    about = {name: record.benchmarks.get(name, {}) for name in scores}
    return _table(
        [
            {
                "benchmark": name,
                "task": about[name].get("task"),
                "metric": about[name].get("metric"),
                "score": score,
                "stderr": errors.get(name),
                "items": items.get(name),
            }
            for name, score in scores.items()
        ]
    )


def _models(board: Board) -> Table:
    """A row per model: base, experts, references, and the merged one of a single job."""
    rows = []
    for line in board.lines:
        scores = {name: line.score(column) for column, name in _columns(board).items()}
        values = {name: score.value if score else None for name, score in scores.items()}
        rows.append({"model": line.lead[0], "role": line.role, "on_front": line.on_front, **values})
    return _table(rows)


def _columns(board: Board) -> dict[str, str]:
    return {AVERAGE: "average"} | {name: name for name in board.benchmarks}


def _differences(comparison: Comparison) -> list[dict[str, object]]:
    """A row per run, its twin, and quantity: long, so that a panel can filter and group them."""
    return [
        {
            "run": comparison.label(row),
            "job": row.job.folder,
            "twin": row.baseline.job.folder,
            "method": row.job.record.method,
            "omega": row.job.record.omega,
            **_difference(difference),
        }
        for row in comparison.rows
        for difference in (row.average, *([row.gain] if row.gain else []), *row.scores.values())
    ]


def _difference(difference: Difference) -> dict[str, object]:
    test = difference.test
    return {
        "quantity": difference.quantity,
        "difference": difference.value,
        "low": test.low if test else None,
        "high": test.high if test else None,
        "p": test.p if test else None,
        "adjusted_p": difference.adjusted_p,
        "verdict": str(difference.verdict),
    }


def _jobs(results: Results) -> list[dict[str, Any]]:
    """The rows of `results.csv`; settings that are numbers in all of them as numbers."""
    rows: list[dict[str, Any]] = [*job_rows(results)]
    for name in rows[0].keys() & {*NAMED, *results.varying}:
        numbers = [_number(row[name]) for row in rows]
        if all(
            number is not None or row[name] in NULLS
            for number, row in zip(numbers, rows, strict=True)
        ):
            for row, number in zip(rows, numbers, strict=True):
                row[name] = number
    return rows


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Of rows with the same keys."""
    names = tuple(rows[0]) if rows else ()
    return Table(names, tuple(tuple(row[name] for name in names) for row in rows))


def _filled(tables: Mapping[str, Table]) -> dict[str, Table]:
    return {name: table for name, table in tables.items() if table.rows}


def _saved_model(folder: Path) -> SavedModel:
    """With what `RECIPE_FILE` says of how it was made."""
    recipe = OmegaConf.to_container(OmegaConf.load(folder / RECIPE_FILE))
    return SavedModel(folder, cast("dict[str, Any]", recipe))
