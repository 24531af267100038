"""What a model is called by: a hub id at a commit, or the digest of a local folder's files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from pathlib import Path

from aim_exp.errors import CheckpointError
from aim_exp.types import ModelRef

WEIGHTS = ("*.safetensors", "model.safetensors.index.json")
COMPANIONS = ("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
              "added_tokens.json", "vocab*", "merges.txt", "chat_template*", "*.model")  # fmt: skip
_HUB_ID = re.compile(r"^(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?$")


def resolve_model(name: str, source: str, key: str, memo: Path) -> ModelRef:
    """The model called `source`: a local folder, or a hub id with an optional `@revision`.

    `key` is the configuration key that named it, for errors; digests of local files are
    remembered under `memo` by path, size and time. Raises CheckpointError.
    """
    folder = Path(os.path.expandvars(source)).expanduser()
    if folder.is_dir():
        return ModelRef(name, folder.resolve(), _folder_digest(folder.resolve(), key, memo))
    match = _HUB_ID.match(source)
    if not match:
        raise CheckpointError(
            f"{key}={source}: no such folder; give a local folder or a hub id (org/name@revision)"
        )
    return _hub_model(name, source, match["id"], match["revision"], key)


def download(model: ModelRef) -> None:
    """Fetch a hub model that is not on disk yet. Raises CheckpointError."""
    if model.path.is_dir():
        return
    from huggingface_hub import snapshot_download

    hub_id, commit = model.identity.removeprefix("hub:").split("@")
    try:
        snapshot_download(hub_id, revision=commit, allow_patterns=[*WEIGHTS, *COMPANIONS])
    except Exception as error:
        raise CheckpointError(f"{model.name}: download of {hub_id} failed ({error})") from error


def _hub_model(name: str, source: str, hub_id: str, revision: str | None, key: str) -> ModelRef:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        local = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        local = None
    if local is not None and revision == local.name:  # a pinned commit that is on disk
        return ModelRef(name, local, f"hub:{hub_id}@{local.name}")
    try:
        commit = HfApi().model_info(hub_id, revision=revision, timeout=10).sha
    except Exception as error:
        if local is not None:
            return ModelRef(name, local, f"hub:{hub_id}@{local.name}")
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{key}={source}: no such folder, and the hub does not give it ({reason}); "
            "check the name, the network and, for a gated model, HF_TOKEN"
        ) from error
    folder = Path(HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "snapshots" / str(commit)
    return ModelRef(name, folder, f"hub:{hub_id}@{commit}")


def _folder_digest(folder: Path, key: str, memo: Path) -> str:
    files = sorted({path for pattern in (*WEIGHTS, *COMPANIONS) for path in folder.glob(pattern)})
    try:
        digests = [[path.name, file_digest(path, memo)] for path in files if path.is_file()]
    except OSError as error:
        raise CheckpointError(f"{key}={folder}: cannot be read ({error})") from error
    return "sha256:" + hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def file_digest(path: Path, memo: Path) -> str:
    """The sha256 of a file, in hex; remembered under `memo` until its size or time changes."""
    status = path.stat()
    known = json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns]).encode()
    entry = memo / hashlib.sha256(known).hexdigest()
    if entry.is_file():
        return entry.read_text()
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    memo.mkdir(parents=True, exist_ok=True)
    partial = entry.with_name(f"{entry.name}.{uuid.uuid4().hex}")
    partial.write_text(digest)
    partial.rename(entry)
    return digest
