"""What a model is called by: a hub id at a commit, or a folder's digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from aim_exp.checkpoint.companions import companions_digest
from aim_exp.checkpoint.convert import PICKLED, converted_folder, pickled_files
from aim_exp.checkpoint.digests import file_digest
from aim_exp.checkpoint.hub import COMPANIONS, WEIGHTS, hub_model
from aim_exp.errors import CheckpointError
from aim_exp.types import ModelRef

_HUB_ID = re.compile(r"^(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?$")


def resolve_model(name: str, source: str, key: str, memo: Path) -> ModelRef:
    """The model called `source`: a local folder, or a hub id with an optional `@revision`.

    `key` is the configuration key that named it, for errors; digests of local files are
    remembered under `memo` by path, size and time. Raises CheckpointError.
    """
    folder = Path(os.path.expandvars(source)).expanduser()
    if folder.is_dir():
        return _local_model(name, folder.resolve(), key, memo)
    match = _HUB_ID.match(source)
    if not match:
        raise CheckpointError(
            f"{key}={source}: no such folder; give a local folder or a hub id (org/name@revision)"
        )
    return hub_model(name, source, match["id"], match["revision"], key, memo)


def _local_model(name: str, folder: Path, key: str, memo: Path) -> ModelRef:
    pickled = pickled_files(folder)
    identity = _folder_digest(folder, [PICKLED] if pickled else WEIGHTS, key, memo)
    try:
        companions = companions_digest(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{key}={folder}: cannot be read ({error})") from error
    if not pickled:
        return ModelRef(name, folder, identity, companions=companions)
    converted = converted_folder(identity, memo)
    return ModelRef(name, converted, identity, origin=folder, companions=companions)


def _folder_digest(folder: Path, weights: Sequence[str], key: str, memo: Path) -> str:
    files = sorted({path for pattern in (*weights, *COMPANIONS) for path in folder.glob(pattern)})
    try:
        digests = [[path.name, file_digest(path, memo)] for path in files if path.is_file()]
    except OSError as error:
        raise CheckpointError(f"{key}={folder}: cannot be read ({error})") from error
    return "sha256:" + hashlib.sha256(json.dumps(digests).encode()).hexdigest()
