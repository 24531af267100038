"""Lines of JSON that are added as they come, each with a checksum."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3


@dataclass
class Lines:
    """What a file holds: the key and value of each whole line, and how many lines are damaged."""

    values: dict[str, Any] = field(default_factory=dict)
    damaged: int = 0


def checked_line(owner: str, key: str, value: Any) -> str:
    """The line for a value, with its end; `owner`'s: among those of another it is damaged."""
    return json.dumps([key, value, _checksum(owner, key, value)]) + "\n"


def read_lines(path: Path, owner: str) -> Lines:
    """What `checked_line` wrote; a last line that was cut off is passed over."""
    lines = Lines()
    *whole, _ = path.read_bytes().split(b"\n")
    for line in whole:
        try:
            key, value, checksum = json.loads(line)
            if checksum != _checksum(owner, key, value):
                raise ValueError(checksum)
        except (ValueError, TypeError, RecursionError):
            lines.damaged += 1
        else:
            lines.values[key] = value
    return lines


def _checksum(owner: str, key: str, value: Any) -> str:
    return blake3(json.dumps([owner, key, value]).encode()).hexdigest(8)
