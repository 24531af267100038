"""The files that a benchmark's task is of, and those that it reads. lm-eval is not imported here.

Own tasks lie in a suite's `task_folder`, or where a benchmark names a task by its path: then the
files beside it count as well. What they read elsewhere is found by name in their YAML.
"""

import glob
import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

YAML_SUFFIXES = (".yaml", ".yml")
IGNORED = {"__pycache__", ".ipynb_checkpoints", ".git"}
"""Folders that lm-eval passes over, or that change by themselves."""
DATASET_FOLDERS = ("dataset_path", "data_dir")
"""Keys whose value may be a folder of items."""


def is_path(task: str) -> bool:
    """Whether a benchmark names its task by the file that it is in."""
    return task.endswith(YAML_SUFFIXES)


def own_files(folder: Path | None, task: str) -> list[Path]:
    """All files beside own tasks, sorted."""
    files = set(_below(folder)) if folder else set()
    if is_path(task):
        files |= {path for path in Path(task).absolute().parent.glob("*") if path.is_file()}
    return sorted(files)


def files_digest(folder: Path | None, task: str) -> str | None:
    """Of all that own tasks are made of and read; None where there are none.

    A file in the folder counts with its name there, another one with its content.
    """
    own = own_files(folder, task)
    if not own:
        return None
    outside: set[Path] = set()
    for path in own:
        if path.suffix in YAML_SUFFIXES:
            outside |= set(_named(path))
    names = {path: _name_in(folder, path) for path in own}
    names |= dict.fromkeys(sorted(outside - set(own)), "")
    return digest(names)


def folder_digest(folder: Path | None, suffixes: tuple[str, ...]) -> str | None:
    """Of the files of these kinds in `folder`, by their names in it; None for no folder."""
    if folder is None:
        return None
    paths = sorted(path for path in _below(folder) if path.suffix in suffixes)
    return digest({path: _name_in(folder, path) for path in paths})


def digest(names: dict[Path, str]) -> str:
    """Of the files' contents in this order, each with its name."""
    whole = hashlib.sha256()
    for path, name in names.items():
        stat = path.stat()
        whole.update(f"{name}\0".encode())
        whole.update(_file_digest(path, stat.st_size, stat.st_mtime_ns))
    return whole.hexdigest()


@cache
def _file_digest(path: Path, size: int, mtime: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder.absolute(), followlinks=True):
        folders[:] = sorted(set(folders) - IGNORED)
        yield from (path for name in files if (path := Path(parent, name)).is_file())


def _name_in(folder: Path | None, path: Path) -> str:
    inside = folder is not None and path.is_relative_to(folder.absolute())
    return path.relative_to(folder.absolute()).as_posix() if folder and inside else path.name


def _named(path: Path) -> Iterator[Path]:
    """The files that a YAML file names, directly or by what it includes."""
    stat = path.stat()
    for file in _named_at(path, stat.st_size, stat.st_mtime_ns):
        yield file
        if file.suffix in YAML_SUFFIXES or file.name.endswith("_yaml"):
            yield from _named(file)


@cache
def _named_at(path: Path, size: int, mtime: int) -> tuple[Path, ...]:
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a safe loader
    except (yaml.YAMLError, UnicodeDecodeError):
        return ()  # a check says so
    files: set[Path] = set()
    bases = [Path(), *(Path(v) for k, v in _leaves(config) if k[-1] in DATASET_FOLDERS)]
    for keys, value in _leaves(config):
        if isinstance(value, _Function):
            module = value.rpartition(".")[0].replace(".", "/")
            candidates = [path.parent / f"{module}.py"]
        elif keys[0] == "include":
            candidates = [path.parent / value]
        elif "data_files" in keys:
            patterns = [str(base / value) for base in bases]
            candidates = [Path(hit) for p in patterns for hit in glob.glob(p, recursive=True)]
        elif keys[-1] in DATASET_FOLDERS and os.path.isdir(value):
            candidates = [*_below(Path(value))]
        else:
            candidates = [Path(value)]
        # os.path.isfile also takes what is too long, or no name at all.
        files |= {p.absolute() for p in candidates if os.path.isfile(p)}
    return tuple(sorted(files - {path}))


def _leaves(config: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The strings in a configuration, each with the keys that lead to it."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _leaves(value, (*keys, str(key)))
    elif isinstance(config, list):
        for value in config:
            yield from _leaves(value, keys)
    elif isinstance(config, str) and keys:
        yield keys, config


class _Function(str):
    """What follows `!function`."""


class _Loader(yaml.SafeLoader):
    """YAML as lm-eval writes it, nothing imported."""


_Loader.add_constructor(
    "!function",
    lambda loader, node: _Function(loader.construct_scalar(node)),  # type: ignore
)
