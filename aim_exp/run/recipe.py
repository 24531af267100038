"""What the numbers of a run depend on. Pure data: nothing is read, trained or computed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aim_exp.aim.settings import AimSettings
from aim_exp.merge.method import MergeMethod
from aim_exp.types import ModelRef, Population, Suite

MERGED = "merged"
DRAWS = (
    ("population.seed", "benchmarks.items_seed"),
    ("calibration.seed", "seed"),
    ("repeat",),
)
"""The keys whose values may be draws of the same, not choices: from the outermost level in."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that the numbers of a run depend on, and nothing else.

    `given` are weights merged elsewhere, in the place of the experts. `calibration`,
    `evaluator` and `tasks` (per benchmark) are the ingredients that those parts state.
    """

    population: Population
    method: MergeMethod
    given: ModelRef | None
    take: Mapping[str, str | None] = field(default_factory=dict)
    """Tensors that are not merged, by filter, and whose they are."""
    omega: float | None
    aim: AimSettings
    calibration: Mapping[str, Any]
    expert_texts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By expert, the ingredients of its own calibration, or of a file in its place, where the
    method reads it."""
    suite: Suite
    tasks: Mapping[str, Mapping[str, Any]]
    evaluator: Mapping[str, Any]
    seed: int
    repeat: int
    dtype: str
    vocabulary: str | None = None
    """The rule for vocabularies, where those of the models to merge differ."""
    code: Mapping[str, str] = field(default_factory=dict)
    """By group, the digest of the code of a part that is not this package's."""
    own_companions: frozenset[str] = frozenset()
    """The experts whose settings or tokenizer are not base's: they are scored with their own."""

    @property
    def effective_omega(self) -> float | None:
        """Omega; None where it plays no part."""
        return self.omega if not self.relaxes or self.aim.uses_omega else None

    @property
    def relaxes(self) -> bool:
        """Whether AIM does anything: omega 1 leaves the merge as it is."""
        return self.method.merges and self.omega is not None and self.omega < 1

    @property
    def reads_texts(self) -> bool:
        """Whether it relaxes by activations."""
        return self.relaxes and self.aim.reads_texts

    @property
    def stochastic(self) -> bool:
        """Whether the merged model depends on the seed: by its masks, or AIM's shuffled control."""
        return self.method.stochastic or (self.relaxes and self.aim.stochastic)

    @property
    def draws(self) -> dict[str, int]:
        """The values of the keys in `DRAWS` that the merged model and its scores depend on."""
        values = {
            "population.seed": self.population.seed,
            "benchmarks.items_seed": self.suite.items_seed or None,  # of other sets than the first
            "calibration.seed": next((t["seed"] for t in self._all_texts if "seed" in t), None),
            "seed": self.seed if self.stochastic else None,
            "repeat": self.repeat if self.suite.benchmarks else None,
        }
        return {key: values[key] for level in DRAWS for key in level if values[key] is not None}

    @property
    def _all_texts(self) -> list[Mapping[str, Any]]:
        """The ingredients of all calibrations that something reads."""
        return [*([self.calibration] if self.reads_texts else []), *self.expert_texts.values()]

    @property
    def undrawn(self) -> Recipe:
        """The same for all draws: what of two recipes is equal where they only draw anew."""

        def without(spec: Mapping[str, Any], seed: str) -> Mapping[str, Any]:
            return {key: value for key, value in spec.items() if key != seed}

        tasks = {name: without(spec, "items_seed") for name, spec in self.tasks.items()}
        texts = {name: without(spec, "seed") for name, spec in self.expert_texts.items()}
        return replace(
            self,
            population=self.population.undrawn,
            calibration=without(self.calibration, "seed"),
            expert_texts=texts,
            tasks=tasks,
            seed=0,
            repeat=0,
        )

    def home(self, model: ModelRef) -> ModelRef:
        """Whose architecture and tokenizer a member is scored with: base's, or its own."""
        # A reference may be of any architecture.
        own = model in self.population.references or model.name in self.own_companions
        return model if own else self.population.base

    @property
    def templates(self) -> dict[str, ModelRef | None]:
        """By model, the one whose chat template it is asked with; empty where none is used."""
        if not self.suite.chat_template:
            return {}
        population = self.population
        homes = {model.name: self.home(model).name for model in population.models}
        if self.method.merges:
            homes[MERGED] = population.base.name
        chosen = {name: population.chat_template.get(name, home) for name, home in homes.items()}
        return {
            name: None if source is None else population.model(source)
            for name, source in chosen.items()
        }
