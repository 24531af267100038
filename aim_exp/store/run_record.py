"""The record of a run: `result.json`, typed, with every field explained here once.

All that a report needs lies in the run's directory, and what the jobs of a sweep share in
`shared/` of the sweep's directory: paths in a record are relative to its own directory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from annotated_types import Ge, Le

from aim_exp.errors import AimError
from aim_exp.store.files import write_whole

SCHEMA_VERSION = 2
FILE_NAME = "result.json"
SHARED_FOLDER = "shared"
"""In a sweep's directory (of a single run, its own): what its jobs have in common, by key."""
INTERRUPTED = "interrupted"
"""The error of a run that was ended by Ctrl-C."""
MERGED = "merged"

Role = Literal["base", "expert", "reference", "merged"]
Status = Literal["running", "completed", "failed"]


@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """A model on one benchmark."""

    key: str
    """Of the responses and of all that makes scores of them."""
    undrawn: str
    """The same for all draws (seeds of population, calibration, masks, and `repeat`)."""
    value: Annotated[float, Ge(0), Le(1)]
    """The headline metric, maximised."""
    stderr: Annotated[float, Ge(0)] | None
    n: int
    """Items."""
    metric: str
    """lm-eval's key of the headline."""
    ends: tuple[float, float] = (0.0, 1.0)
    """Values of `metric` that are the scores 0 and 1."""
    metrics: Mapping[str, float]
    """Every metric by its key, as lm-eval gives it."""
    items: str
    """File of the items, gzipped JSON lines: `evaluate.results` says what is in a line."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """A model that was merged, or scored beside the merge."""

    name: str
    role: Role
    identity: str | None = None
    """Of its files; of a merge, the key of its weights. Null where no key of the run needed it."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """`weights`, `responses`, and `undrawn`: of the weights, the same for all draws."""
    scores: Mapping[str, ScoreRecord] = field(default_factory=dict)
    """By benchmark; empty where nothing was scored."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRecord:
    """What a benchmark is here."""

    task: str
    reference_point: float
    """Of the hypervolume, on this axis."""
    objective: bool = True
    """Whether averages, fronts and hypervolumes are over it too."""
    protocol: Mapping[str, Any]
    """What else its scores depend on: limit, template, digests of items, lm-eval's version, ..."""
    num_fewshot: int | None = None
    """Examples in a prompt; null where a group's tasks differ."""


@dataclass(frozen=True, kw_only=True)
class PopulationRecord:
    """The models of a run."""

    name: str
    base: str | None
    """Its folder or hub id, as those of the others."""
    experts: Mapping[str, str]
    merged: tuple[str, ...]
    """The experts that were merged, in order."""
    references: Mapping[str, str] = field(default_factory=dict)
    specialty: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Expert -> the benchmarks it was trained for."""


@dataclass(frozen=True, kw_only=True)
class Dose:
    """What a relaxation left of the plain merge's change, in some of the modules or in all."""

    parameters: int
    relaxed_parameters: int
    mean_r: float | None = None
    """Mean over channels of the share of the delta that stays."""
    norm: float | None = None
    """Norm of the delta after over before."""
    outputs: float | None = None
    """Share of the change of outputs, by base's second moments."""
    delta: float | None = None
    """Norm of the plain merge's delta."""
    share_below: float | None = None
    """Of the channels: those with r below 0.9."""
    differing: float | None = None
    """Of the relaxed elements: those that differ from the plain merge's in the output's dtype."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """A stage of the plan: what it made, whoever made it, and what it rests on."""

    name: str
    needs: tuple[str, ...]
    keys: tuple[str, ...]
    """`stage/key` of its entries in the store."""
    seconds: float | None
    """What it took when it was made, in whatever run that was; null where it is not known."""
    machine: str | None
    began: float | None = None
    """In this run: seconds after its start, with `ended` a timeline; null where it was cached."""
    ended: float | None = None
    waited: float | None = None
    """In this run: the seconds in which it waited for another process that did the work."""
    made_at: float | None = None
    """When the work was finished, in whatever run that was: Unix time."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the merged model stands among base and experts. Scores and volumes of [0, 1]."""

    average: float | None = None
    """The plain mean of the merged model's scores."""
    normalised_average: float | None = None
    """Mean over benchmarks of the score over that of the expert trained for it."""
    gain_over_best_member: float | None = None
    """`average` minus the best average of base and experts."""
    on_front: tuple[str, ...] | None = None
    """Those of base, experts and `merged` that none of the others dominates."""
    hypervolume: float | None = None
    """Of base, all experts and this model."""
    hypervolume_gain: float | None = None
    """d-th root of the volume added to base and the merged experts."""
    hypervolume_gain_population: float | None = None
    """d-th root of the volume added to base and all experts."""
    hypervolume_difference: float | None = None
    """The volume added to base and the merged experts, before the root."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run: what was merged, how, what it scored, and what it took. Times are in seconds."""

    status: Status
    error: str | None = None
    """The message of a failed run."""
    created: str
    """UTC, ISO 8601."""
    command: str
    """What repeats this run."""
    config: Mapping[str, Any]
    """The whole configuration, resolved; what comes from the environment is `***`."""
    choices: Mapping[str, str]
    """The option chosen in each group."""
    overrides: tuple[str, ...] = ()
    """As given."""

    population: PopulationRecord
    benchmarks: Mapping[str, BenchmarkRecord] = field(default_factory=dict)
    models: tuple[ModelRecord, ...] = ()
    """Base, experts, references, and the merged model last."""
    draws: Mapping[str, int] = field(default_factory=dict)
    """The seeds that the merged model depends on, by key: `population.seed`, `seed`, ..."""
    omega: float | None = None
    """As configured, or solved for `aim.dose`; null for the plain merge, and where it plays no
    part."""
    relaxed: bool = False
    """Whether a relaxation changed the merge at all."""
    relaxation: str | None = None
    """Its name: aim, uniform, shuffled, ..."""
    dose: Mapping[str, Dose] = field(default_factory=dict)
    """By kind of module, and `all`."""
    dose_by_layer: Mapping[int, Dose] = field(default_factory=dict)
    standing: Standing = Standing()
    deltas: Mapping[str, Any] | None = None
    """How the experts' deltas lie to each other: norms, cosines, signs. Where nothing is scored."""
    calibration: Mapping[str, int] = field(default_factory=dict)
    """How many texts, blocks and tokens were read."""
    saliency: str | None = None
    """File of base's saliency (safetensors), where something was relaxed by it."""

    dtype: str = ""
    device: str = ""
    stages: tuple[StageRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    """By group, the digest of a part's code from outside the package, which is kept in `shared/`
    with the configuration files from outside."""
    timings: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """git commit, platform, threads; cpu, cpus, memory_gib, gpu, gpus of the machine."""

    @property
    def method(self) -> str:
        """The choice in the group `method`."""
        return self.choices.get("method", "")

    @property
    def merged(self) -> ModelRecord | None:
        """The merged model, scored or not; None where nothing is merged."""
        return next((model for model in self.models if model.role == MERGED), None)

    @property
    def members(self) -> tuple[ModelRecord, ...]:
        """Base and experts."""
        return tuple(model for model in self.models if model.role in ("base", "expert"))

    @property
    def references(self) -> tuple[ModelRecord, ...]:
        """Models scored beside the population, never merged."""
        return tuple(model for model in self.models if model.role == "reference")

    def write(self, directory: Path) -> Path:
        """Write `result.json` into `directory`, whole or not at all."""
        path = directory / FILE_NAME
        content = {"schema_version": SCHEMA_VERSION, **asdict(self), **self._flat()}
        write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path

    def _flat(self) -> dict[str, Any]:
        """What scripts of others read, derived from the rest; never read back."""
        merged, members = self.merged, [model for model in self.members if model.scores]
        scores = merged.scores if merged and merged.scores else None
        return {
            "method": self.method,
            "scores": scores and {name: score.value for name, score in scores.items()},
            "stderr": scores and {name: score.stderr for name, score in scores.items()},
            "population_scores": {
                model.name: {name: score.value for name, score in model.scores.items()}
                for model in members
            }
            or None,
            **asdict(self.standing),
        }


def read_record(directory: Path) -> RunRecord:
    """The record in `directory`. AimError, one line that says what is wrong and what helps."""
    path = directory / FILE_NAME
    try:
        content = json.loads(path.read_bytes(), parse_constant=_not_finite)
    except OSError as error:
        raise AimError(f"{FILE_NAME} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise AimError(f"{FILE_NAME} is not JSON") from error
    if not isinstance(content, dict):
        raise AimError(f"{FILE_NAME} is no table")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise AimError(
            f"{FILE_NAME} has schema version {version}, this code reads {SCHEMA_VERSION}; repeat "
            "its command (its answers are cached)"
        )
    return _validated(content)


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name}: no number of JSON")


def _validated(content: Mapping[str, Any]) -> RunRecord:
    from pydantic import ValidationError

    try:
        return _adapter().validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AimError(f"{FILE_NAME}: {where}: {first['msg']}") from error


@cache
def _adapter() -> Any:
    """Types checked as declared above; what is derived (`_flat`) is passed over."""
    from pydantic import TypeAdapter

    return TypeAdapter(RunRecord)


def find_records(*directories: Path) -> tuple[list[tuple[Path, RunRecord]], list[str]]:
    """Every record in or below `directories`, with its folder, in the order of their paths.

    Jobs of a sweep are numbered: `10` comes after `9`. Then the ones that cannot be read, a line
    each: `sweep/3: result.json is not JSON`.
    """
    paths = [path.parent for top in directories for path in top.rglob(FILE_NAME)]
    folders = {folder.resolve(): folder for folder in paths}.values()  # each once
    records, problems = [], []
    for folder in sorted(folders, key=natural_order):
        try:
            records.append((folder, read_record(folder)))
        except AimError as error:
            problems.append(f"{folder}: {error}")
    return records, problems


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Of folders: `10` after `9`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in path.parts]
