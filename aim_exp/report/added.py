"""Models that were scored elsewhere, by item: beside the runs in tables, fronts and tests."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aim_exp.errors import AimError, did_you_mean, first_line
from aim_exp.report.draws import OUTERMOST
from aim_exp.report.files import write_atomically
from aim_exp.report.items import Source, read_items
from aim_exp.report.load import Job, Runs
from aim_exp.report.words import few
from aim_exp.store.run_record import MERGED, ModelRecord, RunRecord, ScoreRecord
from aim_exp.store.stage_spec import content_key
from aim_exp.store.standing import standing

FOLDER = "added"
KEY_DIGITS = 24
Scores = Mapping[str, float]
"""By item: `12`, or `mmlu_anatomy 12` where a benchmark has several tasks."""


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """A line of the file."""

    model: str
    benchmark: str
    item: int | str
    score: float
    """By the benchmark's headline metric."""


def with_added(runs: Runs, path: Path) -> Runs:
    """`runs`, and a job for each model of `path`: JSON lines of model, benchmark, item, score.

    They stand beside base and experts of the first scored run, as merges do, and were scored on the
    same items, all of them. AimError says what is missing or unknown, with the line or the model.
    """
    scored = [job for job in runs.jobs if not job.ended_early and _base(job)]
    if not scored:
        raise AimError(f"--add {path}: no run here was scored, so there are no items")
    first = scored[0]
    for seed in OUTERMOST:
        if len(values := {job.record.draws.get(seed) for job in scored if job.record}) > 1:
            raise AimError(
                f"--add {path}: a model stands beside one population, and these runs have "
                f"{len(values)} ({seed}); give the runs of one"
            )
    models: dict[str, dict[str, dict[str, float]]] = {}
    for where, line in _lines(path):
        scores = models.setdefault(line.model, {}).setdefault(line.benchmark, {})
        if str(line.item) in scores:
            raise AimError(f"{where}: item {line.item} of {line.benchmark} is there twice")
        scores[str(line.item)] = line.score
    if not models:
        raise AimError(f"--add {path}: has no lines")
    taken = {job.title for job in runs.jobs} | first.sources.keys()
    for name in models:
        if name in taken:
            raise AimError(f"--add {path}: {name} is a model or a run here; give it another name")
    jobs = (_job(first, name, scores, f"--add {path}: {name}") for name, scores in models.items())
    return replace(runs, jobs=(*runs.jobs, *jobs))


def _base(job: Job) -> ModelRecord | None:
    """The base that it scored."""
    members = job.record.members if job.record else ()
    return next((model for model in members[:1] if model.scores), None)


def _lines(path: Path) -> Iterator[tuple[str, ItemScore]]:
    """Each with its place."""
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(ItemScore)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AimError(f"--add {path}: cannot be read ({first_line(error)})") from error
    for number, text in enumerate(lines, 1):
        where = f"--add {path}: line {number}"
        try:
            yield where, adapter.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise AimError(f"{where}: {key}{': ' * bool(key)}{first['msg']}") from error


def _job(first: Job, name: str, scores: Mapping[str, Scores], where: str) -> Job:
    record, base = first.record, _base(first)
    assert record
    assert base
    for benchmark in scores:
        if benchmark not in base.scores:
            hint = did_you_mean(benchmark, base.scores)
            raise AimError(f"{where}: {benchmark} is no benchmark of these runs{hint}")
    if missing := [benchmark for benchmark in base.scores if benchmark not in scores]:
        raise AimError(f"{where}: has no scores on {few(missing)}; all benchmarks are needed")
    own = {
        benchmark: _score(first, base, benchmark, scores[benchmark], f"{where} on {benchmark}")
        for benchmark in base.scores
    }
    key = content_key("added", 1, [name, {benchmark: each.key for benchmark, each in own.items()}])
    keys = {"weights": key, "responses": key, "undrawn": key}
    model = ModelRecord(name=MERGED, role="merged", identity=key, keys=keys, scores=own)
    values = {m.name: {b: s.value for b, s in m.scores.items()} for m in (*record.members, model)}
    added = RunRecord(
        status="completed",
        created=record.created,
        command="",
        config={**record.config, "method": {}, "omega": None},
        choices={**record.choices, "method": name},
        population=record.population,
        benchmarks=record.benchmarks,
        models=(*record.members, model),
        draws={seed: value for seed, value in record.draws.items() if seed in OUTERMOST},
        standing=standing(
            values.pop(MERGED),
            values,
            record.population.merged,
            record.population.specialty,
            {b: about.reference_point for b, about in record.benchmarks.items() if about.objective},
        ),
        versions=record.versions,
        dtype=record.dtype,
        device=record.device,
    )
    return replace(first, name=name, title=name, folder=name, record=added, overrides=())


def _score(
    first: Job, base: ModelRecord, benchmark: str, scores: Scores, where: str
) -> ScoreRecord:
    """On base's items, with its weights of tasks."""
    source, about = first.sources[base.name][benchmark], base.scores[benchmark]
    items = read_items(source)
    alone = len(set(items.tasks)) == 1
    ids = [_id(task, number, alone) for task, number, _ in items.ids]
    for words, several in (("are missing", [each for each in ids if each not in scores]),
                           ("are not those of these runs", scores.keys() - set(ids))):  # fmt: skip
        if several:
            raise AimError(f"{where}: {len(several)} items {words}: {few(sorted(several))}")
    worst, best = source.ends
    shares = (np.array([scores[each] for each in ids]) - worst) / (best - worst)
    if odd := next((each for each, share in zip(ids, shares, strict=True)
                    if not 0 <= share <= 1), None):  # fmt: skip
        raise AimError(f"{where}: item {odd}: {scores[odd]:g} is not in {worst:g} to {best:g}")
    value = replace(items, gained=shares[:, None] * items.possible).score
    metric = source.metric.partition(",")[0]
    lines = [
        line
        | {"text": "", "filtered": "", "choices": None}  # what was answered is not known
        | {"metrics": {metric: _shaped(scores[_id(line["task"], line["doc_id"], alone)], was)}}
        for line, was in source.lines()
    ]
    file, key = _written(first, source, lines)
    return replace(
        about,
        key=key,
        undrawn=key,
        value=value,
        stderr=_stderr(shares, items.tasks, items.weights),
        metrics={about.metric: worst + value * (best - worst)},
        items=Path(os.path.relpath(file, first.directory)).as_posix(),
    )


def _id(task: str, number: int, alone: bool) -> str:
    return str(number) if alone else f"{task} {number}"


def _shaped(score: float, like: Any) -> Any:
    """A score of each part, where an item has several."""
    if isinstance(like, Mapping):
        return {name: _shaped(score, part) for name, part in like.items()}
    return [score] * len(like) if isinstance(like, list) else score


def _written(first: Job, source: Source, lines: list[dict[str, Any]]) -> tuple[Path, str]:
    """The file of items, beside those that the jobs of the sweep share, and its key."""
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    key = content_key("added", 1, [source.metric, hashlib.sha256(text).hexdigest()])
    file = first.shared / FOLDER / f"{key[:KEY_DIGITS]}.jsonl.gz"
    try:
        packed = gzip.compress(text, mtime=0)
        return write_atomically(file, lambda partial: partial.write_bytes(packed)), key
    except OSError as error:
        raise AimError(f"{file.parent} cannot be written ({error.strerror})") from error


def _stderr(shares: Any, tasks: list[str], weights: Mapping[str, float]) -> float | None:
    """Of the mean of `shares` [items], by task and its weight; None of a single item."""
    by_task = np.array(tasks)
    own = {task: shares[by_task == task] for task in weights}
    if any(len(each) < 2 for each in own.values()):
        return None
    return math.sqrt(sum(weights[t] ** 2 * each.var(ddof=1) / len(each) for t, each in own.items()))
