"""Which files make a model: the weights that its index names, and the companions beside them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from aim_exp.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*",
                   "merges.txt", "*.model", "*.tiktoken", "tekken.json", "chat_template*",
                   "additional_chat_templates/*.jinja")  # fmt: skip
COMPANIONS = (CONFIG_FILE, GENERATION_CONFIG, *TOKENIZER_FILES, "*processor_config.json", "*.py")
"""What decides, beside the weights, what a model computes; nothing else is copied with it."""

ADAPTER_ALONE = (
    "an adapter, not a model; give it as an expert of its base: population.base=BASE "
    "'population.experts={NAME: ADAPTER}'"
)


def matching(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    """The files of a folder that match one of `patterns`, by their name in it, sorted."""
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths)}


def companion_files(folder: Path) -> dict[str, Path]:
    """The companions in a model's folder, by their name in it."""
    return matching(folder, COMPANIONS)


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """The contents of the files that make a tokenizer, by name."""
    return {name: path.read_bytes() for name, path in matching(folder, TOKENIZER_FILES).items()}


def copy_companions(source: Path, target: Path, patterns: tuple[str, ...] = COMPANIONS) -> None:
    """Copy the companions of the model in `source`, those like `patterns`, to `target`."""
    for name, path in matching(source, patterns).items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_bytes(path.read_bytes())


def weight_files(folder: Path, label: str) -> Mapping[str, frozenset[str] | None]:
    """The files that hold a model's weights, by their name in its folder, with their tensors.

    None stands for all that are in the file. An index may name files below the folder; links are
    followed, as in the hub's cache. Raises CheckpointError, naming `label`.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{label}: {folder} is not a folder")
    if (folder / SINGLE_FILE).is_file():
        return {SINGLE_FILE: None}
    if not (folder / INDEX_FILE).is_file() and (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{label}: {folder} is {ADAPTER_ALONE}")
    if not (folder / INDEX_FILE).is_file():
        raise CheckpointError(
            f"{label}: {folder} holds no {SINGLE_FILE} or {INDEX_FILE}; "
            "convert other formats to safetensors first"
        )
    tensors: dict[str, set[str]] = {}
    for tensor, file in sorted(_weight_map(folder / INDEX_FILE, label).items()):
        tensors.setdefault(file, set()).add(tensor)
    missing = [name for name in tensors if not os.path.isfile(folder / name)]
    if missing:
        raise CheckpointError(
            f"{label}: {folder} lacks {', '.join(missing)}, which its index lists; "
            "download it again"
        )
    return {name: frozenset(tensors[name]) for name in sorted(tensors)}


def read_json(path: Path, label: str) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError, naming `label`."""
    if not path.is_file():  # what is no file may keep its reader waiting for ever
        raise CheckpointError(f"{label}: {path} is not there")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{label}: {path} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{label}: {path} is not a JSON object")
    return content


def json_if_there(path: Path, label: str) -> dict[str, Any]:
    """The same, empty where there is no such file."""
    return read_json(path, label) if path.is_file() else {}


def write_json(path: Path, content: object) -> None:
    """As transformers writes it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _weight_map(index: Path, label: str) -> Mapping[str, str]:
    """Tensors to files, none of which leads out of the folder: that would be another model's."""
    places = read_json(index, label).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(file, str) and file.isprintable() for file in places.values()
    ):
        raise CheckpointError(f"{label}: {index} holds no weight_map of tensors to files")
    for tensor, file in places.items():
        path = PurePosixPath(file.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise CheckpointError(
                f"{label}: {index} places {tensor} in {file}, outside the model's folder; put the "
                "file beside the index and name it there"
            )
    return places
