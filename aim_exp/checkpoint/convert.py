"""Old checkpoints to safetensors: pickled weights are read as weights only, never as code."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aim_exp.checkpoint.files import INDEX_FILE, SINGLE_FILE, copy_companions, write_json
from aim_exp.checkpoint.reader import RECOMPUTED
from aim_exp.errors import CheckpointError, first_line
from aim_exp.store.files import whole_folder

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = "pytorch_model*.bin"
NESTED = ("model", "state_dict")
"""What training scripts put the weights under, beside what else they keep."""


def pickled_files(folder: Path) -> Sequence[Path]:
    """The pickled weights of a folder that has no safetensors of its own."""
    if any((folder / name).is_file() for name in (SINGLE_FILE, INDEX_FILE)):
        return []
    return sorted(folder.glob(PICKLED))


def converted_folder(identity: str, memo: Path) -> Path:
    """Where the store, which has `memo` in it, keeps a model that was converted."""
    return memo.parent / "converted" / re.sub(r"\W+", "-", identity)


def convert(source: Path, target: Path) -> None:
    """Write the weights of `source` as safetensors into `target`, with its companions.

    One file in memory at a time; `target` appears when it is whole. Raises CheckpointError for
    a file that holds anything but tensors.
    """
    from safetensors.torch import save_file

    files = pickled_files(source)
    if not files:
        raise CheckpointError(f"{source}: holds neither safetensors nor {PICKLED}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(target) as partial:
        places: dict[str, str] = {}
        for number, file in enumerate(files, start=1):
            tensors = {
                name: tensor.detach().clone()  # what shares memory may not be saved as it is
                for name, tensor in _weights(file).items()
                if not name.endswith(RECOMPUTED)
            }
            name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
            name = SINGLE_FILE if len(files) == 1 else name
            save_file(tensors, partial / name, {"format": "pt"})
            places |= dict.fromkeys(tensors, name)
        if len(files) > 1:
            write_json(partial / INDEX_FILE, {"weight_map": places})
        copy_companions(source, partial)


def _weights(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a pickled file by name. Raises CheckpointError."""
    import torch

    mapped = zipfile.is_zipfile(file)  # torch wrote other files before 1.6
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # pickle raises every kind
        raise CheckpointError(
            f"{file}: not a file of weights only ({first_line(error)})"
        ) from error
    while nested := [key for key in NESTED if isinstance(_table(content).get(key), Mapping)]:
        content = content[nested[0]]
    tensors = {name: value for name, value in _table(content).items() if torch.is_tensor(value)}
    if not tensors or len(tensors) < len(content):
        odd = next((str(name) for name in _table(content) if name not in tensors), "no tensor")
        raise CheckpointError(
            f"{file}: not a file of weights only (it holds {odd}); keep the tensors by name, as "
            f"they are or under {' or '.join(NESTED)}"
        )
    return tensors


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
