"""Old checkpoints to safetensors: pickled weights are read as weights only, never as code."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from aim_exp.checkpoint.files import INDEX_FILE, SINGLE_FILE, copy_companions
from aim_exp.checkpoint.reader import RECOMPUTED
from aim_exp.errors import CheckpointError

PICKLED = "pytorch_model*.bin"


def pickled_files(folder: Path) -> Sequence[Path]:
    """The pickled weights of a folder that has no safetensors."""
    if any(folder.glob("*.safetensors")):
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
    import torch
    from safetensors.torch import save_file

    files = pickled_files(source)
    if not files:
        raise CheckpointError(f"{source}: holds neither safetensors nor {PICKLED}")
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        places: dict[str, str] = {}
        for number, file in enumerate(files, start=1):
            try:
                loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:  # pickle raises every kind
                reason = str(error).splitlines()[0]
                raise CheckpointError(f"{file}: not a file of weights only ({reason})") from error
            tensors = {
                name: tensor.clone()  # what shares memory may not be saved as it is
                for name, tensor in loaded.items()
                if not name.endswith(RECOMPUTED)
            }
            name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
            name = SINGLE_FILE if len(files) == 1 else name
            save_file(tensors, partial / name, {"format": "pt"})
            places |= dict.fromkeys(tensors, name)
        if len(files) > 1:
            (partial / INDEX_FILE).write_text(json.dumps({"weight_map": places}))
        copy_companions(source, partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
