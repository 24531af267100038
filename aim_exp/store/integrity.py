"""What an entry holds, by digest, so that damage is noticed before anything is read from it."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from blake3 import blake3

DIGESTS_FILE = "digests.json"
"""In an entry: its name, and the digest of every file in it but this one."""
THREADS = min(8, os.cpu_count() or 1)
"""More read no faster from a disk."""


def blake3_of(path: Path) -> str:
    """The digest of a file, in hex."""
    return blake3(max_threads=THREADS).update_mmap(path).hexdigest()


def seal(folder: Path, name: str) -> None:
    """Note what the entry holds: `name` is `STAGE/KEY`."""
    files = {file: blake3_of(folder / file) for file in _files(folder)}
    text = json.dumps({"entry": name, "files": files}, indent=1)
    (folder / DIGESTS_FILE).write_text(text + "\n")


def damage(folder: Path, name: str) -> str | None:
    """What is wrong with the entry, `FILE: why`; None where it is there as it was sealed.

    A file is read once in a process, and again when its size, its times or its place change.
    """
    try:
        content = json.loads((folder / DIGESTS_FILE).read_bytes())
        entry, files = content["entry"], dict(content["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return f"{folder / DIGESTS_FILE}: is missing or not readable"
    if entry != name:
        return f"{folder}: holds {entry}"
    there = _files(folder)
    for file in [*files, *there]:
        if file not in there:
            return f"{folder / file}: is missing"
        if file not in files:
            return f"{folder / file}: does not belong there"
        try:
            status = (folder / file).stat()
            stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            if _digest(folder / file, stamp) != files[file]:
                return f"{folder / file}: is not as it was written"
        except OSError as error:
            return f"{folder / file}: cannot be read ({error.strerror})"
    return None


@cache
def _digest(path: Path, stamp: tuple[int, ...]) -> str:
    del stamp
    return blake3_of(path)


def _files(folder: Path) -> list[str]:
    """Those below `folder`, but for the hidden ones that systems leave."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.name.startswith(".") and path.name != DIGESTS_FILE and path.is_file()
    )
