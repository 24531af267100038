"""The Hugging Face hub: what it has of a model or data set, what that weighs, and how to get it.

Every refusal is one line: the reason, and what to do where a model is gated.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from aim_exp.checkpoint.adapters import is_adapter, write_adapted_companions
from aim_exp.checkpoint.convert import PICKLED, convert, converted_folder, pickled_files
from aim_exp.checkpoint.digests import file_digest
from aim_exp.checkpoint.files import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    COMPANIONS,
    CONFIG_FILE,
    SINGLE_FILE,
)
from aim_exp.checkpoint.reader import TORCH_NAMES, Checkpoint
from aim_exp.errors import AimError, CheckpointError, first_line
from aim_exp.store.files import check_free
from aim_exp.types import ModelRef

HUB = "hub:"
"""How the identity of a hub model begins; its id and commit follow."""
WEIGHTS = ("*.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = (PICKLED, "pytorch_model.bin.index.json")
CARD = "README.md"
"""A model's card, which names its licence."""


def hub_model(
    name: str, source: str, hub_id: str, revision: str | None, key: str, memo: Path
) -> ModelRef:
    """The model `hub_id` at a revision, of which nothing is downloaded yet; see `resolve_model`.

    Of an adapter, base is still to be named.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError

    def model(commit: str, folder: Path, *, pickled: bool, files: Collection[str]) -> ModelRef:
        identity = f"{HUB}{hub_id}@{commit}"
        plain = ModelRef(name, folder, identity)
        if is_adapter(files):
            return replace(plain, adapter=plain)
        if not pickled:
            return plain
        return replace(plain, path=converted_folder(identity, memo), origin=folder)

    def on_disk(folder: Path) -> ModelRef:
        files = [path.name for path in folder.iterdir()]
        return model(folder.name, folder, pickled=bool(pickled_files(folder)), files=files)

    try:
        local = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        local = None
    if local is not None and revision == local.name:  # a pinned commit that is on disk
        return on_disk(local)
    what = f"{key}={source}: no such folder, and the hub does not give it"
    try:
        with _hub_gives(hub_id, what, "; check the name and the network"):
            info = _info(hub_id, revision=revision)
    except CheckpointError:
        if local is None:
            raise
        return on_disk(local)
    commit, files = str(info.sha), [file.rfilename for file in info.siblings or []]
    folder = Path(HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "snapshots" / commit
    pickled = not any(file.endswith(".safetensors") for file in files)
    return model(commit, folder, pickled=pickled, files=files)


def download(model: ModelRef) -> None:
    """Have the model on disk: fetched, and converted if it is pickled. Raises CheckpointError.

    Of an adapter, base too.
    """
    if model.adapter and model.adapts:
        _fetch(model.adapter, ADAPTER_CONFIG)
        download(model.adapts)
        write_adapted_companions(model)
        return
    _fetch(model)
    if model.origin and not model.path.is_dir():
        size = sum(path.stat().st_size for path in pickled_files(model.origin))
        check_free(f"{model.name}, converted,", size, model.path.parent, "cache_dir")
        convert(model.origin, model.path)


def _fetch(model: ModelRef, *more: str) -> None:
    hub_id, commit = known_as(model)
    if commit and not _is_whole(model.origin or model.path):
        from huggingface_hub import snapshot_download

        _check_free(f"{model.name}'s download", bytes_to_download(model))
        with _hub_gives(hub_id, f"{model.name}: download of {hub_id} failed"):
            patterns = [*_weights(model), *COMPANIONS, CARD, *more]
            snapshot_download(hub_id, revision=commit, allow_patterns=patterns)


def bytes_to_download(model: ModelRef) -> int:
    """The size of a hub model's files, if they are not on disk. Raises CheckpointError."""
    if model.adapter:
        return bytes_to_download(model.adapter)
    hub_id, commit = known_as(model)
    if model.path.is_dir() or not commit:
        return 0
    from huggingface_hub.utils import filter_repo_objects

    with _hub_gives(hub_id, f"{model.name}: {hub_id} does not tell its size"):
        info = _info(hub_id, revision=commit, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    wanted = filter_repo_objects(sizes, allow_patterns=[*_weights(model), *COMPANIONS])
    return sum(sizes[name] for name in wanted)


def parameter_counts(model: ModelRef) -> dict[str, int]:
    """How many parameters of each dtype a model has, in torch's words; nothing large is fetched.

    Pickled files that are not converted yet tell nothing: an empty table. Of an adapter, base's.
    """
    if model.adapts:
        return parameter_counts(model.adapts)
    if model.path.is_dir():
        return Checkpoint(model.path, model.name).parameters
    hub_id, commit = known_as(model)
    return _hub_parameters(model.name, hub_id, commit) if commit and not model.origin else {}


def stored_dtype(model: ModelRef) -> str:
    """The dtype of most of a model's parameters, in torch's words; nothing large is fetched."""
    if counts := parameter_counts(model):
        return max(counts, key=lambda dtype: counts[dtype])
    config = json.loads(_companion(model, CONFIG_FILE).read_text())
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def dataset_refusal(dataset: str) -> str | None:
    """Why the hub does not give a data set, `NAME (reason)`, or None if it does."""
    try:
        with _hub_gives(dataset, dataset):
            _info(dataset, kind="dataset")
    except AimError as error:
        return str(error)
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
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.dataset, self.name, repo_type="dataset")
        return Path(path) if isinstance(path, str) else None

    def digest(self, memo: Path) -> str:
        """The sha256 of the file, which the hub tells without a download."""
        if self.local:
            return file_digest(self.local, memo, "sha256")
        return f"sha256:{self._facts().sha256}"

    def bytes_to_download(self) -> int:
        """Its size, if it is not on disk."""
        return 0 if self.local else int(self._facts().size)

    def download(self) -> Path:
        """The file, downloaded once."""
        from huggingface_hub import hf_hub_download

        if self.local:
            return self.local
        # It asks the hub, too: a download retries for long before it fails.
        _check_free(f"{self.dataset}'s {self.name}", self.bytes_to_download())
        return Path(hf_hub_download(self.dataset, self.name, repo_type="dataset"))

    def _facts(self) -> Any:
        """What the hub says of it. Raises AimError where it does not."""
        what = f"{self.key}: {self.dataset} cannot be had from the hub"
        with _hub_gives(self.dataset, what, f"; give a local copy of {self.name}"):
            info = _info(self.dataset, kind="dataset", files_metadata=True)
            return next(file.lfs for file in info.siblings or [] if file.rfilename == self.name)


def _check_free(what: str, size: int) -> None:
    """StorageError where the hub's own cache has no room for it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    check_free(what, size, Path(HF_HUB_CACHE), "HF_HUB_CACHE")


def known_as(model: ModelRef) -> tuple[str, str]:
    """A model's hub id and commit, or its folder and an empty text."""
    if model.identity is None or not model.identity.startswith(HUB):
        return str(model.origin or model.path), ""
    hub_id, commit = model.identity.removeprefix(HUB).split("@")
    return hub_id, commit


def _weights(model: ModelRef) -> tuple[str, ...]:
    return PICKLED_WEIGHTS if model.origin else WEIGHTS


def _is_whole(folder: Path) -> bool:
    """Whether all files that a folder's index lists are there: a download may be cut off."""
    indices = [*folder.glob("*.safetensors.index.json"), *folder.glob("*.bin.index.json")]
    listed = {name for i in indices for name in json.loads(i.read_text())["weight_map"].values()}
    if listed:
        return all((folder / name).is_file() for name in listed)
    weights = (SINGLE_FILE, "pytorch_model.bin", ADAPTER_FILE)
    return any((folder / name).is_file() for name in weights)


_answers: dict[tuple[Any, ...], Any] = {}
"""What the hub said, or the exception that its client raised."""


def forget_refusals() -> None:
    """Ask again for what the hub did not give: it may only have been out of reach."""
    for question in [key for key, answer in _answers.items() if isinstance(answer, Exception)]:
        del _answers[question]


def _info(
    repository: str,
    *,
    kind: str = "model",
    revision: str | None = None,
    files_metadata: bool = False,
) -> Any:
    """What the hub says of a repository; raises whatever its client raises.

    Asked once in a process, so that all jobs of a sweep take the same commit; a refusal stands
    until `forget_refusals`, so that a job waits for it once.
    """
    from huggingface_hub import HfApi

    question = (repository, kind, revision, files_metadata)
    if question not in _answers:
        try:
            _answers[question] = HfApi().repo_info(
                repository,
                repo_type=kind,
                revision=revision,
                files_metadata=files_metadata,
                timeout=10,
            )
        except Exception as error:
            _answers[question] = error
    if isinstance(_answers[question], Exception):
        raise _answers[question]
    return _answers[question]


@cache
def _hub_parameters(name: str, hub_id: str, commit: str) -> dict[str, int]:
    from huggingface_hub import get_safetensors_metadata

    with _hub_gives(hub_id, f"{name}: {hub_id} does not show its headers"):
        counts = get_safetensors_metadata(hub_id, revision=commit).parameter_count
    return {TORCH_NAMES[dtype]: n for dtype, n in counts.items() if "F" in dtype}


def _companion(model: ModelRef, name: str) -> Path:
    """A small file of a model that is not on disk in our layout yet."""
    hub_id, commit = known_as(model)
    if not commit:
        return Path(hub_id) / name
    from huggingface_hub import hf_hub_download

    with _hub_gives(hub_id, f"{model.name}: no {name} of {hub_id}"):
        return Path(hf_hub_download(hub_id, name, revision=commit))


@contextmanager
def _hub_gives(repository: str, what: str, fix: str = "") -> Iterator[None]:
    """Whatever the client raises in here becomes a CheckpointError, `what (reason)fix`.

    It raises many kinds: of HTTP, of the network, of its own, of files.
    """
    from huggingface_hub.errors import GatedRepoError

    try:
        yield
    except GatedRepoError as error:
        terms = f"gated: accept its terms on huggingface.co/{repository} and set HF_TOKEN"
        raise CheckpointError(f"{what} ({terms}){fix}") from error
    except Exception as error:
        raise CheckpointError(f"{what} ({first_line(error)}){fix}") from error
