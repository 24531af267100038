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
SMALL = 2**20


def blake3_of(path: Path) -> str:
    """The digest of a file, in hex."""
    if path.stat().st_size < SMALL:  # threads and a map take longer than the file
        return blake3(path.read_bytes()).hexdigest()
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
    try:
        there = _files(folder)
        for file in [*files, *there]:
            if file not in there:
                return f"{folder / file}: is missing"
            if file not in files:
                return f"{folder / file}: does not belong there"
            if _digest(folder, file, there[file]) != files[file]:
                return f"{folder / file}: is not as it was written"
    except OSError as error:
        return f"{error.filename}: cannot be read ({error.strerror})"
    return None


@cache
def _digest(folder: Path, file: str, stamp: tuple[int, ...]) -> str:
    del stamp
    return blake3_of(folder / file)


def _files(folder: Path) -> dict[str, tuple[int, ...]]:
    """Those below `folder`, but for the hidden ones that systems leave, by their names there.

    With each what changes when it does: size, times, its place on the disk.
    """
    stamps: dict[str, tuple[int, ...]] = {}
    inner = [""]
    for within in inner:
        for each in os.scandir(folder / within):
            if each.name.startswith(".") or each.name == DIGESTS_FILE:
                continue
            if each.is_dir():
                inner.append(f"{within}{each.name}/")
            else:
                status = each.stat()
                times = (status.st_mtime_ns, status.st_ctime_ns)
                stamps[f"{within}{each.name}"] = (status.st_size, *times, status.st_ino)
    return dict(sorted(stamps.items()))
