"""Digests of files, remembered, so that a model of many gigabytes is read once."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path


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
