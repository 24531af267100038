"""Checkpoints, as the tests read them."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from aim_exp.checkpoint.reader import Checkpoint


def checkpoint(folder: Path, name: str) -> Checkpoint:
    return Checkpoint(folder / name, name)


def tensors(folder: Path) -> dict[str, Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
