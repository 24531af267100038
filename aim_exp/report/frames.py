"""Tidy frames: every score, and every item, of some directories of runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aim_exp.errors import AimError
from aim_exp.report.items import parts
from aim_exp.report.load import Job, Runs, load
from aim_exp.store.run_record import ModelRecord, RunRecord, ScoreRecord

if TYPE_CHECKING:  # half a second
    import pandas as pd

COLUMNS = (
    "sweep", "job", "status", "model", "role", "benchmark", "metric", "value", "stderr", "n",
    "method", "omega", "relaxed", "seed",
)  # fmt: skip
DIRECTORIES = "directories"
"""Among a frame's `attrs`."""
Line = dict[str, Any]
"""By column; None where there is nothing to say."""


def results(*directories: str | Path) -> pd.DataFrame:
    """Every score in or below `directories`: a line per model and benchmark.

    Columns: `sweep`, `job`, `status`, `model`, `role` (base, expert, reference, merged),
    `benchmark`, `metric` (lm-eval's key of the headline), `value` (in [0, 1]), `stderr`, `n`
    (items), `method`, `omega` (1.0 for a plain merge; missing where it plays no part), `relaxed`,
    `seed`; then every setting by its full key, numbers as numbers, `none` for null. A table of
    equal values is that value, else a column per name (`method.weight.code`).

    Base, experts and references stand once per sweep and population, without settings. A run that
    scored nothing has one line, without a benchmark.
    """
    return _frame([line for _, _, line in score_lines(load(*map(Path, directories)))], directories)


def items(*directories: str | Path) -> pd.DataFrame:
    """Every item of every model in or below `directories`, by its benchmark's headline metric.

    The columns of `results`, where `value` is the item's and `stderr` and `n` are left out, and
    `task`, `doc_id`, `prompt`, `target`, `answer` (what was written, or the likeliest choice) after
    `value`. A file that is gone is warned of and left out.
    """
    every = []
    for job, score, line in score_lines(load(*map(Path, directories))):
        if score is not None:
            before = {name: line[name] for name in list(line)[: list(line).index("value")]}
            after = {name: line[name] for name in list(line)[list(line).index("n") + 1 :]}
            try:
                source = job.sources[line["model"]][line["benchmark"]]
                for own, value in source.lines():
                    item = {name: own.get(name) for name in ("task", "doc_id", "prompt", "target")}
                    answered = {"value": item_score(value, source.ends), **item}
                    every.append(before | answered | {"answer": answer(own)} | after)
            except AimError as error:
                where = f"{job.folder}, {line['model']} on {line['benchmark']}"
                warnings.warn(f"{where}: {error}", stacklevel=2)
    return _frame(every, directories)


def score_lines(runs: Runs) -> Iterator[tuple[Job, ScoreRecord | None, Line]]:
    """A line per model and benchmark, members once per sweep and population."""
    known: set[tuple[str, str, str, str]] = set()
    for job in runs.jobs:
        record = job.record
        settings = merge_settings(job)
        of_job: Line = {"sweep": job.sweep, "job": job.name, "status": job.status}
        models = [model for model in record.models if model.scores] if record else []
        merged = record.merged if record else None
        if not models or (merged and not merged.scores):
            yield job, None, {**of_job, **_line(merged), **settings}
        for model in models:
            own = settings if model is merged else dict.fromkeys(settings)
            for benchmark, score in model.scores.items():
                line = (job.sweep, model.name, benchmark, score.key)
                if model is merged or line not in known:
                    known.add(line)
                    yield job, score, {**of_job, **_line(model, benchmark, score), **own}


def merge_settings(job: Job) -> Line:
    """Of a merge: method, omega, relaxed, seed, then every other setting by its full key.

    Empty without a record.
    """
    record = job.record
    if record is None:
        return {}
    settings = {n: "none" if v is None else v for n, v in job.settings.items()}  # never missing
    method = record.method if record.method != "none" else None
    first: Line = {
        "method": method,
        "omega": omega_of(record),
        "relaxed": record.relaxed if method else None,
        "seed": record.config.get("seed") if method else None,
    }
    return {**first, **{name: value for name, value in settings.items() if name not in first}}


def omega_of(record: RunRecord) -> float | None:
    """1.0 for a plain merge; None where it plays no part."""
    if record.method == "none":
        return None
    never_planned = record.relaxation is None and record.status != "completed"
    plain = record.omega is None if never_planned else record.relaxation is None
    return 1.0 if plain else record.omega


def _line(
    model: ModelRecord | None, benchmark: str | None = None, score: ScoreRecord | None = None
) -> Line:
    of_score = {name: score and getattr(score, name) for name in ("metric", "value", "stderr", "n")}
    about = {"model": model and model.name, "role": model and model.role}
    return {**about, "benchmark": benchmark, **of_score}


def answer(line: Line) -> Any:
    """What was written; of choices, the text of the likeliest."""
    choices = line.get("choices")
    if not choices:
        return line.get("text")
    return max(choices, key=lambda choice: choice["loglikelihood"])["text"]


def item_score(value: Any, ends: tuple[float, float]) -> float | None:
    """An item's, on the scale of the benchmark's; None where its metric is no number."""
    try:
        gained, possible = parts(value)
    except (TypeError, ValueError):
        return None
    if not all(possible):
        return None
    worst, best = ends  # an array of one number each would take ten times as long
    shares = [(g / p - worst) / (best - worst) for g, p in zip(gained, possible, strict=True)]
    return sum(shares) / len(shares)


def _frame(rows: list[Line], directories: Sequence[str | Path]) -> pd.DataFrame:
    """It says where it is from, which what is chosen of it says too."""
    import pandas as pd

    columns = dict.fromkeys(name for row in rows for name in row) or dict.fromkeys(COLUMNS)
    frame = pd.DataFrame(rows, columns=list(columns))
    frame = frame.astype({"relaxed": "boolean", "omega": "float64"})
    frame.attrs[DIRECTORIES] = [str(Path(each).resolve()) for each in directories]
    return frame
