"""Files written whole or not at all: several jobs of a sweep may write the same one at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aim_exp.store.files import RUN_KEYS, named, unfinished
from aim_exp.store.stage_spec import content_key

KEY_DIGITS = 24


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write(temporary)` fill a file beside `path`, then put it in its place."""
    with named(path, path.parent, RUN_KEYS):
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path) as partial:
            write(partial)
            os.replace(partial, path)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a file of text, in the same way."""
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def kept(folder: Path, version: int, spec: Any, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON; from `folder` if the same was made before.

    `spec` is all that it depends on. In a folder that cannot be written, it is made each time.
    """
    file = folder / f"{content_key(folder.name, version, spec)[:KEY_DIGITS]}.json"
    with suppress(OSError, ValueError):
        return json.loads(file.read_bytes())
    value = make()
    with suppress(OSError):
        write_atomically(file, lambda partial: partial.write_text(json.dumps(value) + "\n"))
    return value
