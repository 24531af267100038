"""What a model is called by: a hub id at a commit, or a folder's digest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aim_exp.checkpoint.companions import companions_digest
from aim_exp.checkpoint.convert import converted_folder, pickled_files
from aim_exp.checkpoint.digests import file_digest, text_digest
from aim_exp.checkpoint.files import INDEX_FILE, companion_files, weight_files
from aim_exp.checkpoint.hub import hub_model
from aim_exp.errors import CheckpointError
from aim_exp.types import ModelRef

_HUB_ID = re.compile(r"^(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?$")


def resolve_model(name: str, source: str, key: str, memo: Path) -> ModelRef:
    """The model called `source`: a local folder, or a hub id with an optional `@revision`.

    `key` is the configuration key that named it, for errors. A local folder has no identity yet
    (`identified`), unless its weights are pickled: it names what is made of them. Raises
    CheckpointError.
    """
    folder = Path(os.path.expandvars(source)).expanduser()
    if folder.is_dir():
        return _local_model(name, folder.resolve(), memo)
    match = _HUB_ID.match(source)
    if not match:
        raise CheckpointError(
            f"{key}={source}: no such folder; give a local folder or a hub id (org/name@revision)"
        )
    return hub_model(name, source, match["id"], match["revision"], key, memo)


def identified(model: ModelRef, memo: Path) -> ModelRef:
    """The model with its identity: the digest of all that is read of its folder.

    Digests of files are remembered under `memo`. Raises CheckpointError.
    """
    if model.identity is not None:
        return model
    identity = _folder_digest(model.name, model.path, memo)
    return replace(model, identity=identity, companions=companions_digest(model.path))


def _local_model(name: str, folder: Path, memo: Path) -> ModelRef:
    pickled = {path.name: path for path in pickled_files(folder)}
    if not pickled:
        return ModelRef(name, folder, None)
    identity = _digest(name, pickled | companion_files(folder), memo)
    converted = converted_folder(identity, memo)
    companions = companions_digest(folder)
    return ModelRef(name, converted, identity, origin=folder, companions=companions)


def _folder_digest(name: str, folder: Path, memo: Path) -> str:
    """Of the weights that are read, the index that says from where, and the companions."""
    weights = [*weight_files(folder, name), INDEX_FILE]
    files = {file: folder / file for file in weights if (folder / file).is_file()}
    return _digest(name, files | companion_files(folder), memo)


def _digest(name: str, files: Mapping[str, Path], memo: Path) -> str:
    try:
        digests = [[file, file_digest(files[file], memo)] for file in sorted(files)]
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read ({error})") from error
    return text_digest(json.dumps(digests))
