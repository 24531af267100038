"""Populations: where base and experts come from, and which of them are merged."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aim_exp.checkpoint.hub import download, stored_dtype
from aim_exp.checkpoint.identity import resolve_model
from aim_exp.errors import ConfigError, collect
from aim_exp.population.embedded import training
from aim_exp.store.entries import Store
from aim_exp.store.stage_spec import StageSpec
from aim_exp.types import ExpectedScores, ModelRef, Population

BASE = "base"
MERGED = "merged"
RESERVED = {BASE, MERGED}


@dataclass(frozen=True, kw_only=True)
class PopulationSource(ABC):
    """A population as configured.

    `merge` names the experts to merge, in order (None: all); `references` are further
    models that are scored and never merged, name to folder or hub id (None: none).
    `chat_template` is the model whose chat template base, experts and merge take, or a table of
    such models, `merged` too, where None stands for no template (None: each its own
    tokenizer's).
    """

    name: str
    merge: Any
    references: Any
    chat_template: Any

    @property
    @abstractmethod
    def expert_names(self) -> tuple[str, ...]:
        """The experts' names, in order; an empty tuple where they are misconfigured."""

    @property
    def merged_names(self) -> tuple[str, ...]:
        """The names of the experts to merge, in order."""
        return self.expert_names if self.merge is None else tuple(self.merge)

    @abstractmethod
    def resolve(self, store: Store) -> Population:
        """The population; folders without identity. Raises ConfigError listing all problems."""

    @abstractmethod
    def recipe(self, population: Population) -> StageSpec | None:
        """The stage that makes the models, or None where they are given."""

    @abstractmethod
    def ensure(self, store: Store, population: Population) -> None:
        """Have every model on disk: train, download, or nothing."""

    @abstractmethod
    def dtype(self, population: Population) -> str:
        """The dtype that the models are run in, known without training."""

    def training_bytes(self, population: Population) -> tuple[int, int]:
        """What training writes, and what it has in memory at least, for what is small 0."""
        return 0, 0

    def population(
        self,
        base: ModelRef,
        experts: Sequence[ModelRef],
        references: tuple[ModelRef, ...],
        specialty: Mapping[str, tuple[str, ...]],
        **more: Any,
    ) -> Population:
        """Of these models, with what is configured."""
        return Population(
            self.name,
            base,
            tuple(experts),
            self.merged_names,
            references,
            specialty=specialty,
            chat_template=self.templates,
            **more,
        )

    @property
    def merged_dtype(self) -> str | None:
        """The dtype of merged weights where base's would round what was learnt; None: base's."""
        return None

    def problems(self) -> list[str]:
        """What is wrong with the settings, `key=value: why; fix` each."""
        problems = _model_table_problems("population.references", self.references or {})
        if self.references and not problems:
            taken = sorted({*RESERVED, *self.expert_names} & set(self.references))
            problems += [f"population.references.{name}: the name is taken" for name in taken]
        return problems or self._merge_problems() + self._template_problems()

    @property
    def templates(self) -> Mapping[str, str | None]:
        """By model, the one whose chat template it takes, where it is not its own."""
        if isinstance(self.chat_template, str):
            return dict.fromkeys((BASE, *self.expert_names, MERGED), self.chat_template)
        return self.chat_template or {}

    def _template_problems(self) -> list[str]:
        key = "population.chat_template"
        if not isinstance(self.chat_template, str | Mapping | None):
            return [f"{key}={self.chat_template}: must be a model, or a table {{model: model}}"]
        models = [BASE, *self.expert_names, *(self.references or {})]
        problems = [
            f"{key}.{name}: there is no such model; there are {', '.join([*models, MERGED])}"
            for name in self.templates
            if name not in (*models, MERGED)
        ]
        problems += [
            f"{key}={source}: there is no such model; there are {', '.join(models)}"
            for source in self.templates.values()
            if source not in (*models, None)
        ]
        return [*dict.fromkeys(problems)]

    def _merge_problems(self) -> list[str]:
        if self.merge is None or not self.expert_names:
            return []
        known = ", ".join(self.expert_names)
        if isinstance(self.merge, str) or not isinstance(self.merge, Sequence) or not self.merge:
            return [f"population.merge={self.merge}: must be a list of experts, of {known}"]
        problems = [
            f"population.merge={_shown(self.merge)}: no expert is called {name}; there are {known}"
            for name in self.merge
            if name not in self.expert_names
        ]
        if not problems and len(set(self.merge)) < len(self.merge):
            problems.append(f"population.merge={_shown(self.merge)}: an expert is listed twice")
        return problems


@dataclass(frozen=True, kw_only=True)
class TrainedPopulation(PopulationSource):
    """Three experts that are trained here, once per seed."""

    seed: int

    @property
    def expert_names(self) -> tuple[str, ...]:
        """`code`, `instruct`, `math`."""
        return training.EXPERTS

    @abstractmethod
    def training_from(self, base: ModelRef | None) -> StageSpec:
        """The training, from `base` where that is given, keyed by all that it depends on."""

    def trained(
        self, store: Store, base: ModelRef | None, names: Sequence[str]
    ) -> tuple[ModelRef, ...]:
        """The models; they need not be there: their identity is their recipe."""
        recipe, first = self.training_from(base), replace(self, seed=0).training_from(base)
        folder, undrawn = store.mended(recipe), f"{recipe.stage}:{first.key} by seed"

        def model(name: str) -> ModelRef:
            identity = f"{recipe.stage}:{recipe.key}/{name}"
            return ModelRef(name, folder / name, identity, undrawn=f"{undrawn}/{name}")

        return tuple(model(name) for name in names)

    def dtype(self, population: Population) -> str:
        """What training writes."""
        return training.DTYPE


@dataclass(frozen=True, kw_only=True)
class EmbeddedPopulation(TrainedPopulation):
    """The built-in population: a tiny base and three experts, trained once per seed."""

    def training_from(self, base: ModelRef | None) -> StageSpec:
        """Keyed by its seed, code and library versions; base is trained too."""
        return StageSpec("population", 1, training.recipe(self.seed))

    def recipe(self, population: Population) -> StageSpec:
        """The training."""
        return self.training_from(None)

    def resolve(self, store: Store) -> Population:
        """Needs no training."""
        base, *experts = self.trained(store, None, (BASE, *self.expert_names))
        key = "population.references"
        references, problems = resolve_table(key, self.references or {}, store, base)
        if problems:
            raise ConfigError(problems)
        return self.population(base, experts, references, training.SPECIALTY, seed=self.seed)

    def ensure(self, store: Store, population: Population) -> None:
        """Train what the store does not have."""
        store.get_or_make(
            self.training_from(None),
            lambda folder: training.build_population(folder, self.seed),
            resumes=True,
        )
        for model in population.references:
            download(model)


@dataclass(frozen=True, kw_only=True)
class GivenPopulation(PopulationSource):
    """Your own models: local folders or hub ids (`org/name@revision`).

    `specialty` maps an expert to the benchmarks that it was trained for; where it is None
    there is no normalised average. `expected` are scores that others published, in percent:
    `{suite: NAME, scores: {model: {benchmark: percent}}}`, or None.
    """

    base: str
    experts: Any
    specialty: Any
    expected: Any

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The names given."""
        return tuple(self.experts) if isinstance(self.experts, Mapping) else ()

    def recipe(self, population: Population) -> StageSpec | None:
        """None: they are given."""
        return None

    def problems(self) -> list[str]:
        """Also a table of experts that is none, and a specialty of nobody.

        No experts at all will do for a method that merges none.
        """
        problems = _model_table_problems("population.experts", self.experts or {})
        problems += [
            f"population.experts.{name}: the name is taken; call the expert something else"
            for name in sorted(RESERVED & set(self.expert_names))
        ]
        if not isinstance(self.specialty, Mapping | None):
            shape = "{expert: [benchmark, ...]}"
            return [*problems, f"population.specialty={self.specialty}: must be a table {shape}"]
        unknown = sorted(set(self.specialty or {}) - set(self.expert_names))
        problems += [f"population.specialty.{name}: there is no such expert" for name in unknown]
        return problems + self._expected_problems() + super().problems()

    def _expected_problems(self) -> list[str]:
        if self.expected is None:
            return []
        shape = "{suite: NAME, scores: {model: {benchmark: percent}}}"
        try:
            expected = _expected(self.expected)
        except (TypeError, ValueError, KeyError, AttributeError):
            return [f"population.expected={self.expected}: must be a table {shape}"]
        unknown = set(expected.scores) - {BASE, *self.expert_names}
        return [
            f"population.expected.scores.{name}: there is no such model" for name in sorted(unknown)
        ]

    def resolve(self, store: Store) -> Population:
        """Looks for local folders and asks the hub for commits."""
        specialty = {name: tuple(benchmarks) for name, benchmarks in (self.specialty or {}).items()}
        expected = None if self.expected is None else _expected(self.expected)
        models = given_models(store, self.base, self.experts or {}, self.references or {})
        return self.population(*models, specialty, expected=expected)

    def ensure(self, store: Store, population: Population) -> None:
        """Download what is on the hub only."""
        for model in population.models:
            download(model)

    def dtype(self, population: Population) -> str:
        """From base's headers, the hub's where it is not on disk."""
        return stored_dtype(population.base)


def _expected(table: Any) -> ExpectedScores:
    scores = {
        model: {benchmark: float(percent) / 100 for benchmark, percent in row.items()}
        for model, row in table["scores"].items()
    }
    return ExpectedScores(str(table["suite"]), scores)


def _model_table_problems(key: str, table: Any) -> list[str]:
    if not isinstance(table, Mapping):
        return [f"{key}={table}: must be a table {{name: DIR or hub id}}"]
    return [
        f"{key}.{name}={source}: must be a folder or a hub id"
        for name, source in table.items()
        if not isinstance(source, str) or not source
    ]


def given_models(
    store: Store, base: str, experts: Mapping[str, str], references: Mapping[str, str]
) -> tuple[ModelRef, tuple[ModelRef, ...], tuple[ModelRef, ...]]:
    """Base, experts and references. Raises ConfigError listing all problems."""
    bases, problems = resolve_table("population", {BASE: base}, store)
    on = bases[0] if bases else None
    tuned, more = resolve_table("population.experts", experts, store, on)
    others, most = resolve_table("population.references", references, store, on)
    if problems := problems + more + most:
        raise ConfigError(problems)
    return bases[0], tuned, others


def resolve_table(
    key: str, table: Mapping[str, str], store: Store, base: ModelRef | None = None
) -> tuple[tuple[ModelRef, ...], list[str]]:
    """The models of a table of configuration, and what is wrong with those that there are not.

    Adapters are those of `base`.
    """
    problems: list[str] = []
    memo = store.root / "digests"
    models = [
        collect(problems, partial(resolve_model, name, source, f"{key}.{name}", memo, base))
        for name, source in table.items()
    ]
    return tuple(filter(None, models)), problems


def _shown(names: Sequence[str]) -> str:
    return f"[{','.join(map(str, names))}]"
