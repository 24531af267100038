"""Digests of files, remembered, so that a model of many gigabytes is read once."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from aim_exp.store.files import unfinished
from aim_exp.store.integrity import blake3_of


def file_digest(path: Path, memo: Path, algorithm: str = "blake3") -> str:
    """A file's digest, `ALGORITHM:HEX`: `blake3`, or `sha256` where it is compared with the hub's.

    Remembered under `memo` until the file changes its size, its times or its place on the disk. A
    note that was cut short or altered is made again.
    """
    status = path.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    known = json.dumps([algorithm, str(path.resolve()), *stamp])
    entry = memo / _short(known)
    try:
        digest, check = entry.read_text().split()
    except (OSError, ValueError):
        digest = check = ""
    if not digest or check != _short(known + digest):
        if algorithm == "blake3":
            content = blake3_of(path)
        else:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, algorithm).hexdigest()
        digest = f"{algorithm}:{content}"
        remember(entry, f"{digest} {_short(known + digest)}\n")
    return digest


def remember(note: Path, text: str) -> None:
    """Write a note whole or not at all; where that cannot be, it is worked out again next time."""
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(note) as partial:
            partial.write_text(text)
            partial.rename(note)


def text_digest(text: str) -> str:
    """A text's digest, `blake3:HEX`."""
    return f"blake3:{_short(text)}"


def _short(text: str) -> str:
    return blake3(text.encode()).hexdigest()
