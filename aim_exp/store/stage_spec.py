"""Content keys: the same ingredients give the same key, on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

LONGEST_NAME = 100
"""Characters of a file's name that stem from a name; file systems take 255 in all."""


@dataclass(frozen=True)
class StageSpec:
    """What changes a stage's numbers, and nothing else; its key names the result."""

    stage: str
    version: int
    spec: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """The content key, 64 hex digits."""
        return content_key(self.stage, self.version, self.spec)

    @property
    def name(self) -> str:
        """`STAGE/KEY`, its place in a store."""
        return f"{self.stage}/{self.key}"

    @property
    def title(self) -> str:
        """For people: `saliency 0123456789ab`."""
        return f"{self.stage} {self.key[:12]}"


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys, no spaces, and one spelling per number.

    An integral float is written as an integer, so that `weight=1` and `weight=1.0`
    give one key. NaN and infinity raise ValueError.
    """
    return json.dumps(
        _canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def content_key(stage: str, version: int, spec: Any) -> str:
    """The sha256, in hex, of canonical `[stage, version, spec]`."""
    return hashlib.sha256(canonical_json([stage, version, spec]).encode()).hexdigest()


def file_name(name: str) -> str:
    """A name that somebody gave as that of a file: one in its folder, whatever the name is."""
    quoted = quote(name, safe="")
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return quoted if len(quoted) <= LONGEST_NAME else f"{quoted[:LONGEST_NAME]}-{digest}"


def _canonical(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value), f"keys must be strings: {value}"
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value
