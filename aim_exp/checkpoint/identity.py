"""What a model is called by: a hub id at a commit, or a folder's digest."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from aim_exp.checkpoint.adapters import is_adapter, named_base, write_adapted_companions
from aim_exp.checkpoint.companions import companions_digest
from aim_exp.checkpoint.convert import converted_folder, pickled_files
from aim_exp.checkpoint.digests import file_digest, text_digest
from aim_exp.checkpoint.files import (
    ADAPTER_ALONE,
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    INDEX_FILE,
    companion_files,
    weight_files,
)
from aim_exp.checkpoint.hub import download, hub_model, known_as
from aim_exp.errors import CheckpointError
from aim_exp.types import ModelRef

_HUB_ID = re.compile(r"^(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?$")
_COMMIT = re.compile("[0-9a-f]{40}")


def resolve_model(
    name: str, source: str, key: str, memo: Path, base: ModelRef | None = None
) -> ModelRef:
    """The model called `source`: a local folder, or a hub id with an optional `@revision`.

    `key` is the configuration key that named it, for errors. A local folder has no identity yet
    (`identified`), unless its weights are pickled: it names what is made of them. An adapter is one
    of `base`; without that it is refused. Raises CheckpointError.
    """
    folder = Path(os.path.expandvars(source)).expanduser()
    match = _HUB_ID.match(source)
    if folder.is_dir():
        model = _local_model(name, folder.resolve(), memo)
    elif match:
        model = hub_model(name, source, match["id"], match["revision"], key, memo)
    else:
        raise CheckpointError(
            f"{key}={source}: no such folder; give a local folder or a hub id (org/name@revision)"
        )
    if not model.adapter:
        return model
    if not base:
        raise CheckpointError(f"{key}={source}: {ADAPTER_ALONE}")
    return _adapted(model, base, key, memo)


def folder_of(source: str, label: str, key: str, memo: Path) -> Path:
    """Of a model: a folder as it is (that takes no digest), or what is fetched or converted first.

    As `resolve_model` takes them; CheckpointError.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() or pickled_files(folder):
        model = resolve_model(label, source, key, memo)
        download(model)
        folder = model.path
    return folder


def identified(model: ModelRef, memo: Path) -> ModelRef:
    """The model with its identity: the digest of all that is read of its folder.

    Digests of files are remembered under `memo`. Raises CheckpointError.
    """
    if model.adapter and model.adapts:
        base = identified(model.adapts, memo)
        own = base.companions is not None and model.path.is_dir()
        return replace(
            model,
            identity=f"{model.adapter.identity} on {base.identity}",
            adapts=base,
            companions=companions_digest(model.path) if own else None,
        )
    if model.identity is not None:
        return model
    folder = model.path
    weights = [*weight_files(folder, model.name), INDEX_FILE]  # what is read, and from where
    files = {file: folder / file for file in weights if (folder / file).is_file()}
    identity = _digest(model.name, files | companion_files(folder), memo)
    return replace(model, identity=identity, companions=companions_digest(folder))


def base_warnings(models: Iterable[ModelRef], memo: Path) -> list[str]:
    """A warning for each adapter of a base of another name, or of a revision that is not known."""
    warnings = []
    for model in models:
        if model.adapter and model.adapts:
            named, revision = named_base(model)
            place = f"{model.name}: an adapter of {named}{f'@{revision}' if revision else ''}"
            known, _ = known_as(model.adapts)
            if Path(named).name.lower() != Path(known).name.lower():
                warnings.append(f"{place}, and base is {known}; are they the same?")
            elif revision and _revision(model, memo) is None:
                warnings.append(f"{place}; whether base is of that revision is not known")
    return warnings


def _adapted(model: ModelRef, base: ModelRef, key: str, memo: Path) -> ModelRef:
    """The adapter on its base, what goes with it on disk where both are."""
    adapter = model.adapter
    assert adapter
    known = base.identity or _digest(base.name, companion_files(base.path), memo)
    folder = converted_folder(text_digest(f"{adapter.identity} on {known}"), memo)
    model = ModelRef(model.name, folder, None, adapter=adapter, adapts=base)
    if adapter.path.is_dir() and base.path.is_dir():
        if (commit := _revision(model, memo)) and commit != known_as(base)[1]:
            named, revision = named_base(model)
            raise CheckpointError(
                f"{key}: adapter {adapter.path} was trained on {named}@{revision}, and base is at "
                f"{known_as(base)[1]}; set population.base={named}@{revision}"
            )
        write_adapted_companions(model)
    return model


def _revision(model: ModelRef, memo: Path) -> str | None:
    """The commit of base that an adapter names, where base is from the hub under that name."""
    assert model.adapts
    named, revision = named_base(model)
    known, commit = known_as(model.adapts)
    if not revision or not commit or known != named:
        return None
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        resolved = hub_model("base", named, named, revision, "base", memo)
    except CheckpointError:  # out of reach
        return None
    return (resolved.identity or "").partition("@")[2]


def _local_model(name: str, folder: Path, memo: Path) -> ModelRef:
    if is_adapter([path.name for path in folder.iterdir()]):
        files = {file: folder / file for file in (ADAPTER_CONFIG, ADAPTER_FILE)}
        there = {file: path for file, path in files.items() if path.is_file()}
        identity = _digest(name, there | companion_files(folder), memo)
        adapter = ModelRef(name, folder, identity)
        return replace(adapter, adapter=adapter)
    pickled = {path.name: path for path in pickled_files(folder)}
    if not pickled:
        return ModelRef(name, folder, None)
    identity = _digest(name, pickled | companion_files(folder), memo)
    converted = converted_folder(identity, memo)
    companions = companions_digest(folder)
    return ModelRef(name, converted, identity, origin=folder, companions=companions)


def _digest(name: str, files: Mapping[str, Path], memo: Path) -> str:
    try:
        digests = [[file, file_digest(files[file], memo)] for file in sorted(files)]
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read ({error})") from error
    return text_digest(json.dumps(digests))
