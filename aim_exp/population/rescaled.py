"""The embedded population in other coordinates: the same functions of the input, other weights.

Each channel that one linear map makes and others read is stretched by a power of two where it is
made and shrunk where it is read, alike in base and experts: every model answers as before, to the
last bit. So does a merge that adds up deltas; one that weighs channels against each other, by
activations or by magnitude, becomes another model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from aim_exp.population.sources import EmbeddedPopulation
from aim_exp.store.entries import Store
from aim_exp.store.stage_spec import StageSpec
from aim_exp.types import ModelRef, Population

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
READERS: Mapping[str, tuple[str, ...]] = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    "self_attn.v_proj": ("self_attn.o_proj",),
    "mlp.up_proj": ("mlp.down_proj",),
}
"""Who reads the channels that a module makes, by their names in a layer."""
FINAL_NORM, HEAD = "model.norm", "lm_head"


@dataclass(frozen=True, kw_only=True)
class RescaledPopulation(EmbeddedPopulation):
    """The embedded population, stretched as `coordinates` draws; 0: as it was trained.

    The factors are 2^-`spread` to 2^`spread`.
    """

    coordinates: int
    spread: int

    def problems(self) -> list[str]:
        """Also a spread beyond what float32 takes."""
        problems = super().problems()
        if not 0 <= self.spread <= 16:
            problems.append(f"population.spread={self.spread}: must be 0 to 16")
        return problems

    @property
    def _trained(self) -> EmbeddedPopulation:
        return EmbeddedPopulation(
            name=self.name, merge=None, references=None, chat_template=None, seed=self.seed
        )

    def training_from(self, base: ModelRef | None) -> StageSpec:
        """The training, and how its models are stretched."""
        trained = self._trained.training_from(base)
        if self.coordinates == 0:
            return trained
        stretching = {"rescaled": VERSION, "coordinates": self.coordinates, "spread": self.spread}
        return StageSpec(trained.stage, trained.version, {**trained.spec, **stretching})

    def ensure(self, store: Store, population: Population) -> None:
        """Train, then stretch what the store does not have."""
        trained = self._trained
        trained.ensure(store, trained.resolve(store))
        source = store.path(trained.training_from(None))
        store.get_or_make(self.training_from(None), lambda folder: self._write(source, folder))
        super().ensure(store, population)

    def _write(self, source: Path, folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        for model in (path for path in source.iterdir() if path.is_dir()):
            shutil.copytree(model, folder / model.name)
            weights = folder / model.name / "model.safetensors"
            stretched = rescaled(load_file(weights), self.coordinates, self.spread)
            save_file(stretched, weights, metadata={"format": "pt"})


def rescaled(weights: Mapping[str, Tensor], coordinates: int, spread: int) -> dict[str, Tensor]:
    """The weights of a Llama with a value head for each query head, in other coordinates."""
    import torch

    result = {name: tensor.clone() for name, tensor in weights.items()}
    for maker, readers in _channels(weights):
        rng = Random(f"{coordinates} {maker}")
        exponents = [rng.randint(-spread, spread) for _ in range(len(weights[maker]))]
        factors = torch.tensor([2.0**exponent for exponent in exponents])
        result[maker].mul_(factors if result[maker].ndim == 1 else factors[:, None])
        for reader in readers:
            result[reader].div_(factors)
    return result


def _channels(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each weight that makes channels, with those that read them."""
    for name in sorted(names):
        module = name.removesuffix(".weight")
        if module == FINAL_NORM:
            yield name, [f"{HEAD}.weight"]
        for maker, readers in READERS.items():
            if module.endswith(f".{maker}"):
                layer = module.removesuffix(maker)
                yield name, [f"{layer}{reader}.weight" for reader in readers]
