"""The core types: small frozen dataclasses that every layer may import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

VALIDATION, POPULATIONS = "validation", "populations"


@dataclass(frozen=True)
class ModelRef:
    """A model on disk, in the Hugging Face layout.

    `identity` names its content (weights, config, tokenizer), whatever the path; None where no
    key of the run needs it: a folder is digested only then.
    `path` may not exist yet where the store will make it (the embedded population).
    """

    name: str
    path: Path
    identity: str | None
    origin: Path | None = None
    """Where the weights come in pickled files only: their folder; `path` is made from it."""
    undrawn: str | None = None
    """Its identity but for the population's seed; None where it has none."""
    companions: str | None = None
    """The digest of its settings and tokenizer; None where they need not be on disk yet."""
    adapter: ModelRef | None = None
    """Where it is an adapter: that alone; `path` has the settings and tokenizer that go with it."""
    adapts: ModelRef | None = None
    """The base of an adapter."""


@dataclass(frozen=True)
class ExpectedScores:
    """What others measured, to check a set-up by: model and benchmark to a score in [0, 1].

    They count in the suite of this name alone: another one asks in another way.
    """

    suite: str
    scores: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Population:
    """A base, the experts fine-tuned from it, and the names of those that are merged.

    `references` are scored beside them and never merged. `specialty` maps an expert to
    the benchmarks that it was trained for.
    """

    name: str
    base: ModelRef
    experts: tuple[ModelRef, ...]
    merged: tuple[str, ...]
    references: tuple[ModelRef, ...] = ()
    specialty: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    expected: ExpectedScores | None = None
    chat_template: Mapping[str, str | None] = field(default_factory=dict)
    """By model (`merged` too), the one whose chat template it is asked with; None: with none.

    A model that is not named here takes its own tokenizer's.
    """
    seed: int | None = None
    """Of its training; None where the models are given."""

    @property
    def undrawn(self) -> Population:
        """What all draws of it, by other seeds, have in common."""

        def undrawn(models: tuple[ModelRef, ...]) -> tuple[ModelRef, ...]:
            return tuple(
                replace(model, identity=model.undrawn or model.identity) for model in models
            )

        base, experts = undrawn((self.base,))[0], undrawn(self.experts)
        return replace(self, base=base, experts=experts, seed=None)

    @property
    def merged_experts(self) -> tuple[ModelRef, ...]:
        """The experts to merge, in the order of `merged`."""
        by_name = {expert.name: expert for expert in self.experts}
        return tuple(by_name[name] for name in self.merged)

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """All that are scored before the merge: base, experts, references."""
        return (self.base, *self.experts, *self.references)

    def model(self, name: str) -> ModelRef:
        """The one of `models` that is called `name`."""
        return next(model for model in self.models if model.name == name)

    def each(self, change: Callable[[ModelRef], ModelRef]) -> Population:
        """The same population of other models: base, experts and references, each by `change`."""
        return replace(
            self,
            base=change(self.base),
            experts=tuple(map(change, self.experts)),
            references=tuple(map(change, self.references)),
        )


@dataclass(frozen=True)
class Benchmark:
    """One axis of the comparison: an lm-eval task and the metric that counts.

    `metric` is lm-eval's key, `name,filter`, maximised and in [0, 1]; None takes the
    task's usual one. One that is minimised, or lies elsewhere, says so: `direction` is `min`, or
    `scale` its values where it is worst and where it is best. `reference_point` is this axis of
    the hypervolume's reference, on the score. One that is no `objective` is scored beside: in no
    average, on no front, in no hypervolume. `cluster` is the column that names the family of an
    item, `task` the task in a group: standard errors are those of the families.
    """

    name: str
    task: str
    metric: str | None = None
    num_fewshot: int | None = None
    reference_point: float = 0.0
    direction: Literal["max", "min"] = "max"
    scale: tuple[float, float] | None = None
    objective: bool = True
    cluster: str | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The metric's values that are the scores 0 and 1."""
        return self.scale or ((1.0, 0.0) if self.direction == "min" else (0.0, 1.0))


@dataclass(frozen=True)
class Suite:
    """The benchmarks of a run, and how their prompts are made.

    `task_folder` holds own task files; None means lm-eval's index. `data_dir` holds the
    items (`evaluate.local_data` says how); None means the hub. `limit` is lm-eval's: items
    per task, or a share below 1. `chat_template` is whether the tokenizer's chat template is
    used, or the name of one of several; `template` the text of another one, in its place, and
    `stops` the tokens that end an answer beside those of the model that is asked.
    `generation` is merged into each task's own generation arguments. `items_seed` counts the sets
    of test items that the built-in suite has.
    """

    name: str
    benchmarks: tuple[Benchmark, ...]
    task_folder: Path | None = None
    data_dir: Path | None = None
    limit: float | None = None
    chat_template: bool | str = False
    template: str | None = None
    stops: tuple[str, ...] = ()
    system_instruction: str | None = None
    fewshot_as_multiturn: bool = False
    generation: Mapping[str, Any] = field(default_factory=dict)
    allow_code_execution: bool = False
    items_seed: int = 0

    @property
    def objectives(self) -> tuple[Benchmark, ...]:
        """The benchmarks that averages, fronts and hypervolumes are over."""
        return tuple(benchmark for benchmark in self.benchmarks if benchmark.objective)


@dataclass(frozen=True)
class Score:
    """A benchmark's headline metric as a score in [0, 1] to maximise, its standard error (None if
    unknown), items.
    """

    value: float
    stderr: float | None
    n: int


@dataclass(frozen=True)
class BenchmarkResult:
    """A model on one benchmark: the headline, and every metric that lm-eval gave by its key.

    `ends` are the values of `metric` that are the scores 0 and 1.
    """

    score: Score
    metric: str
    metrics: Mapping[str, float]
    ends: tuple[float, float] = (0.0, 1.0)
    warnings: tuple[str, ...] = ()
    num_fewshot: int | None = None
    """Examples in a prompt; None where it is not known, or a group's tasks differ."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The group `select`: which of the settings that were tried are chosen, and on what.

    `on` is `validation`, half of the items of each benchmark, by a hash of each, where the other
    half is reported on; or `populations`, all but the one that is reported on, each in turn.
    `of` are glob patterns of the keys that are chosen: what differs in another key has a choice of
    its own. Each choice is made among `budget` settings at most; None: among all.
    """

    on: str
    budget: int | None
    of: tuple[str, ...]

    def problems(self) -> list[str]:
        """What is wrong with it, `key=value: why; fix` each."""
        problems = []
        if self.on not in (VALIDATION, POPULATIONS):
            problems.append(f"select.on={self.on}: must be {VALIDATION} or {POPULATIONS}")
        if self.budget is not None and not (isinstance(self.budget, int) and self.budget >= 2):
            problems.append(f"select.budget={self.budget}: must be at least 2, or null")
        if not all(isinstance(pattern, str) for pattern in self.of):
            problems.append(f"select.of={[*self.of]}: must be a list of keys, as text")
        return problems

    def chooses(self, key: str) -> bool:
        """Whether a key is among those chosen."""
        return any(fnmatchcase(key, pattern) for pattern in self.of)
