"""The record of a run: `result.json`, typed, with every field explained here once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from aim_exp.errors import AimError

SCHEMA_VERSION = 1
INTERRUPTED = "interrupted"
"""The error of a run that was ended by Ctrl-C."""
FILE_NAME = "result.json"
CODE_DIGITS = 12
"""Of the digest of code, enough for people."""
CODE_FOLDER = "code"
"""In a run's directory, the files of its parts from outside the package."""


@dataclass(kw_only=True)
class RunRecord:
    """One run: what was merged, how, what it scored, and what it took.

    Scores lie in [0, 1], times are in seconds; None (null) where nothing was scored.
    """

    schema_version: int = SCHEMA_VERSION
    status: str = "completed"
    """`completed` or `failed`."""
    error: str | None = None
    """The message of a failed run."""
    created: str = ""
    """UTC, ISO 8601."""
    command: str = ""
    """What repeats this run."""

    method: str = ""
    """The choice in the group `method`."""
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    omega: float | None = None
    """AIM's omega as configured; null is the plain merge."""
    aim: Mapping[str, Any] = field(default_factory=dict)
    """statistic, scaling, exclude, tied_head."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """The choice in the group, its settings, and the number of texts and tokens used."""
    population: Mapping[str, Any] = field(default_factory=dict)
    """name, base, experts, merged, references; `models` maps each name to its identity."""
    seed: int = 0
    stochastic: bool = False
    """Whether the merged model depends on the seed."""
    dtype: str = ""
    device: str = ""
    batch_size: int | str | None = None

    suite: str = ""
    """The choice in the group `benchmarks`."""
    benchmarks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per benchmark: task, metric, reference_point, num_fewshot (the examples in a prompt; null
    where a group's tasks differ), and `protocol`: what else its score depends on (limit, template,
    the digest of the items, lm-eval's version, ...)."""
    scores: Mapping[str, float] | None = None
    """The merged model's, by benchmark."""
    stderr: Mapping[str, float | None] | None = None
    n_items: Mapping[str, int] | None = None
    metrics: Mapping[str, Mapping[str, float]] | None = None
    """The merged model's every metric, by benchmark and lm-eval's key."""
    population_scores: Mapping[str, Mapping[str, float]] | None = None
    """base and each expert, by benchmark."""
    population_stderr: Mapping[str, Mapping[str, float | None]] | None = None
    reference_scores: Mapping[str, Mapping[str, float]] | None = None
    """Models scored beside the population, never merged."""
    reference_stderr: Mapping[str, Mapping[str, float | None]] | None = None
    items: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Model -> benchmark -> the file with its per-item results (JSON lines, in the store)."""

    average: float | None = None
    """The plain mean of the merged model's scores."""
    normalised_average: float | None = None
    """Mean over benchmarks of the score over that of the expert trained for it."""
    gain_over_best_member: float | None = None
    """`average` minus the best average of base and experts."""
    on_front: list[str] | None = None
    """Those of base, experts and `merged` that none of the others dominates."""
    hypervolume: float | None = None
    """Of base, all experts and this model."""
    hypervolume_gain: float | None = None
    """d-th root of the volume added to base and the merged experts."""
    hypervolume_gain_population: float | None = None
    """d-th root of the volume added to base and all experts."""
    hypervolume_difference: float | None = None
    """The volume added to base and the merged experts, before the root."""

    relaxation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Per kind of module and `all`: parameters, relaxed_parameters, mean_r,
    share_below_0.9 (of the channels), delta_kept (norm after AIM over norm before)."""

    saliency: str | None = None
    """The folder of base's saliency (in the store), where AIM used it."""

    warnings: list[str] = field(default_factory=list)
    keys: Mapping[str, Any] = field(default_factory=dict)
    """The content key of each stage."""
    code: Mapping[str, str] = field(default_factory=dict)
    """By group, the digest of a part's code from outside the package, which is in `code/`."""
    timings: Mapping[str, float] = field(default_factory=dict)
    products: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """What the results rest on, by `stage/key`: `seconds` and `machine` of when it was made, in
    whatever run that was; null where it is not known. Of scores, without loading the model."""
    versions: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """git commit, platform, threads; cpu, cpus, memory_gib, gpu, gpus of the machine."""

    def write(self, directory: Path) -> Path:
        """Write `result.json` into `directory`, whole or not at all."""
        path = directory / FILE_NAME
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")
        os.replace(partial, path)
        return path


def read_record(directory: Path) -> RunRecord:
    """The record in `directory`; AimError if it is unreadable or of another schema version."""
    path = directory / FILE_NAME
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AimError(f"{path}: not a readable record ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise AimError(f"{path}: schema version {version}, this code reads {SCHEMA_VERSION}")
    known = {item.name for item in fields(RunRecord)}
    return RunRecord(**{name: value for name, value in content.items() if name in known})


def find_records(*directories: Path) -> list[tuple[Path, RunRecord]]:
    """Every record in or below `directories`, with its folder, in the order of their paths.

    Jobs of a sweep are numbered: `10` comes after `9`. Unreadable ones are left out.
    """
    found = [path.parent for top in directories for path in top.rglob(FILE_NAME)]
    folders = {folder.resolve(): folder for folder in found}.values()  # each once
    records = []
    for folder in sorted(folders, key=_natural_order):
        try:
            records.append((folder, read_record(folder)))
        except AimError:
            continue
    return records


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.parts]
