"""What a run takes from outside the package, kept with its results: code and option files."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from aim_exp.config.folder import CONFIG_FOLDER
from aim_exp.config.plugins import outside_modules, source

DIGITS = 12
"""Of a digest, in the names of folders."""
OWN_MACHINE = "local/default"
"""The option that describes a machine, and belongs to its user."""


def copy_sources(parts: Iterable[object], folder: Path) -> None:
    """Write the code of `parts` that is not the package's below `folder/DIGEST`, by module."""
    for name in {name: None for part in parts for name in outside_modules(part)}:
        module = sys.modules[name]
        code = source(module)
        inside = "__init__" if hasattr(module, "__path__") else ""
        place = folder / hashlib.sha256(code).hexdigest()[:DIGITS]
        path = place.joinpath(*name.split("."), inside).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(code)


def outside_config_files(sources: Sequence[Any], choices: Mapping[str, str]) -> tuple[Path, ...]:
    """The files of the chosen options that lie in Hydra's `sources`, but not in the package's."""
    folders = [folder for each in sources if (folder := _folder(each)) and folder != CONFIG_FOLDER]
    options = [f"{group}/{choice}" for group, choice in choices.items() if choice != "None"]
    paths = [folder / f"{option}.yaml" for folder in folders for option in options]
    return tuple(path for path in (*paths, CONFIG_FOLDER / f"{OWN_MACHINE}.yaml") if path.is_file())


def copy_config_files(paths: Iterable[Path], folder: Path) -> None:
    """Copy them below `folder/DIGEST`, with the names of group and option."""
    for path in paths:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]
        target = folder / digest / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _folder(source: Any) -> Path | None:
    """Of a source of Hydra's: a folder as it is, a package by where it is installed."""
    if source.schema == "file":
        return Path(source.path).resolve()
    if source.schema == "pkg" and source.provider not in ("hydra", "schema"):
        try:
            return Path(str(files(source.path)))
        except (ImportError, TypeError):
            return None
    return None
