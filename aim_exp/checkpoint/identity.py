"""What a model is called by, a hub id at a commit or a folder's digest, and how to get it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aim_exp.checkpoint.convert import PICKLED, convert, pickled_files
from aim_exp.checkpoint.reader import CONFIG_FILE, SINGLE_FILE, TORCH_NAMES, Checkpoint
from aim_exp.errors import AimError, CheckpointError
from aim_exp.types import ModelRef

WEIGHTS = ("*.safetensors", "model.safetensors.index.json")
COMPANIONS = ("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
              "added_tokens.json", "vocab*", "merges.txt", "chat_template*", "*.model",
              "*processor_config.json")  # fmt: skip
HUB = "hub:"
"""How the identity of a hub model begins; its id and commit follow."""
CARD = "README.md"
"""A model's card, which names its licence."""
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
    return _hub_model(name, source, match["id"], match["revision"], key, memo)


def download(model: ModelRef) -> None:
    """Have the model on disk: fetched, and converted if it is pickled. Raises CheckpointError."""
    source = model.origin or model.path
    if model.identity.startswith(HUB) and not _is_whole(source):
        from huggingface_hub import snapshot_download

        hub_id, commit = model.identity.removeprefix(HUB).split("@")
        weights = (PICKLED, "pytorch_model.bin.index.json") if model.origin else WEIGHTS
        try:
            snapshot_download(hub_id, revision=commit, allow_patterns=[*weights, *COMPANIONS, CARD])
        except Exception as error:
            reason = _refusal(hub_id, error)
            raise CheckpointError(
                f"{model.name}: download of {hub_id} failed ({reason})"
            ) from error
    if model.origin and not model.path.is_dir():
        convert(model.origin, model.path, COMPANIONS)


def _is_whole(folder: Path) -> bool:
    """Whether all files that a folder's index lists are there: a download may be cut off."""
    indices = [*folder.glob("*.safetensors.index.json"), *folder.glob("*.bin.index.json")]
    listed = {name for i in indices for name in json.loads(i.read_text())["weight_map"].values()}
    if listed:
        return all((folder / name).is_file() for name in listed)
    return any((folder / name).is_file() for name in (SINGLE_FILE, "pytorch_model.bin"))


def _local_model(name: str, folder: Path, key: str, memo: Path) -> ModelRef:
    pickled = pickled_files(folder)
    identity = _folder_digest(folder, [PICKLED] if pickled else WEIGHTS, key, memo)
    if not pickled:
        return ModelRef(name, folder, identity)
    return ModelRef(name, _converted(identity, memo), identity, origin=folder)


def _converted(identity: str, memo: Path) -> Path:
    """Where the store keeps a model that was converted."""
    return memo.parent / "converted" / re.sub(r"\W+", "-", identity)


def bytes_to_download(model: ModelRef) -> int:
    """The size of a hub model's files, if they are not on disk. Raises CheckpointError."""
    if model.path.is_dir() or not model.identity.startswith(HUB):
        return 0
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    hub_id, commit = model.identity.removeprefix(HUB).split("@")
    info = HfApi().model_info(hub_id, revision=commit, files_metadata=True, timeout=10)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    weights = [PICKLED] if model.origin else WEIGHTS
    wanted = filter_repo_objects(sizes, allow_patterns=[*weights, *COMPANIONS])
    return sum(sizes[name] for name in wanted)


def parameter_counts(model: ModelRef) -> dict[str, int]:
    """How many parameters of each dtype a model has, in torch's words; nothing large is fetched.

    Pickled files that are not converted yet tell nothing: an empty table.
    """
    if model.path.is_dir():
        return Checkpoint(model.path, model.name).parameters
    if model.origin or not model.identity.startswith(HUB):
        return {}
    return _hub_parameters(model.name, *model.identity.removeprefix(HUB).split("@"))


def stored_dtype(model: ModelRef) -> str:
    """The dtype of most of a model's parameters, in torch's words; nothing large is fetched."""
    if counts := parameter_counts(model):
        return max(counts, key=lambda dtype: counts[dtype])
    config = json.loads(_companion(model, CONFIG_FILE).read_text())
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


@cache
def _hub_parameters(name: str, hub_id: str, commit: str) -> dict[str, int]:
    from huggingface_hub import get_safetensors_metadata

    try:
        counts = get_safetensors_metadata(hub_id, revision=commit).parameter_count
    except Exception as error:
        reason = _refusal(hub_id, error)
        raise CheckpointError(f"{name}: {hub_id} does not show its headers ({reason})") from error
    return {TORCH_NAMES[dtype]: n for dtype, n in counts.items() if "F" in dtype}


def _companion(model: ModelRef, name: str) -> Path:
    """A small file of a model that is not on disk in our layout yet."""
    if not model.identity.startswith(HUB):
        assert model.origin
        return model.origin / name
    from huggingface_hub import hf_hub_download

    hub_id, commit = model.identity.removeprefix(HUB).split("@")
    try:
        return Path(hf_hub_download(hub_id, name, revision=commit))
    except Exception as error:
        reason = _refusal(hub_id, error)
        raise CheckpointError(f"{model.name}: no {name} of {hub_id} ({reason})") from error


@cache
def dataset_refusal(dataset: str) -> str | None:
    """Why the hub does not give a data set, or None if it does."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(dataset, timeout=10)
    except Exception as error:
        return _refusal(dataset, error)
    return None


@dataclass(frozen=True)
class HubFile:
    """A large file of a data set on the hub; `key` is the configuration key that asks for it."""

    dataset: str
    name: str
    key: str

    @property
    def local(self) -> Path | None:
        """Where it is on disk, if it was downloaded."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            path = hf_hub_download(
                self.dataset, self.name, repo_type="dataset", local_files_only=True
            )
        except LocalEntryNotFoundError:
            return None
        return Path(path)

    def digest(self, memo: Path) -> str:
        """The sha256 of the file, in hex; the hub tells it without a download."""
        return file_digest(self.local, memo) if self.local else str(self._facts().sha256)

    def bytes_to_download(self) -> int:
        """Its size, if it is not on disk."""
        return 0 if self.local else int(self._facts().size)

    def download(self) -> Path:
        """The file, downloaded once."""
        from huggingface_hub import hf_hub_download

        if self.local:
            return self.local
        self._facts()  # a download retries for long before it fails
        return Path(hf_hub_download(self.dataset, self.name, repo_type="dataset"))

    def _facts(self) -> Any:
        """What the hub says of it. Raises AimError where it does not."""
        from huggingface_hub import HfApi

        try:
            info = HfApi().dataset_info(self.dataset, files_metadata=True, timeout=10)
            return next(file.lfs for file in info.siblings or [] if file.rfilename == self.name)
        except Exception as error:
            raise AimError(
                f"{self.key}: {self.dataset} cannot be had from the hub "
                f"({_refusal(self.dataset, error)}); give a local copy of {self.name}"
            ) from error


def _hub_model(
    name: str, source: str, hub_id: str, revision: str | None, key: str, memo: Path
) -> ModelRef:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError

    def model(commit: str, folder: Path, *, pickled: bool) -> ModelRef:
        identity = f"{HUB}{hub_id}@{commit}"
        if not pickled:
            return ModelRef(name, folder, identity)
        return ModelRef(name, _converted(identity, memo), identity, origin=folder)

    try:
        local = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        local = None
    if local is not None and revision == local.name:  # a pinned commit that is on disk
        return model(local.name, local, pickled=bool(pickled_files(local)))
    try:
        info = HfApi().model_info(hub_id, revision=revision, timeout=10)
    except Exception as error:
        if local is not None:
            return model(local.name, local, pickled=bool(pickled_files(local)))
        raise CheckpointError(
            f"{key}={source}: no such folder, and the hub does not give it "
            f"({_refusal(hub_id, error)}); check the name and the network"
        ) from error
    commit, files = str(info.sha), [file.rfilename for file in info.siblings or []]
    folder = Path(HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "snapshots" / commit
    return model(commit, folder, pickled=not any(f.endswith(".safetensors") for f in files))


def _refusal(hub_id: str, error: Exception) -> str:
    """Why the hub does not give a model, in one line, with what to do where it is gated."""
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, GatedRepoError):
        return f"gated: accept its terms on huggingface.co/{hub_id} and set HF_TOKEN"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _folder_digest(folder: Path, weights: Sequence[str], key: str, memo: Path) -> str:
    files = sorted({path for pattern in (*weights, *COMPANIONS) for path in folder.glob(pattern)})
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
