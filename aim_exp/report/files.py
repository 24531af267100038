"""Files written whole or not at all: several jobs of a sweep may write the same one at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aim_exp.store.files import RUN_KEYS, named, unfinished

FORMULA = tuple("=+-@\t\r")
"""What a cell begins with that a spreadsheet would carry out."""


def no_formula(value: Any) -> Any:
    """A cell of CSV: a text that a spreadsheet would carry out as one that it shows."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


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
