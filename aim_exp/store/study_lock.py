"""The lock of a study: what was going to be compared, written before there were results.

`aim_exp.study` writes it; a report reads it, and calls whatever is not in it exploratory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from aim_exp.errors import AimError
from aim_exp.store.stage_spec import canonical_json

LOCK_VERSION = 1
CHANGE_NO_NUMBER = ("select", "tracker", "device", "threads", "cache_dir", "save_model", "plan",
                    "debug", "fail_fast")  # fmt: skip
"""Keys of a configuration that may differ between the lock and the run."""


class Role(StrEnum):
    """What a comparison is in a study."""

    PRIMARY = "primary"
    SECONDARY = "key secondary"
    EXPLORATORY = "exploratory"


@dataclass(frozen=True)
class Contrast:
    """One arm against another, by their names."""

    arm: str
    against: str


@dataclass(frozen=True)
class Job:
    """A run of the study: an arm in a replicate; `over` numbers the settings averaged over.

    `config` is the digest of its configuration.
    """

    arm: str
    replicate: int
    over: int
    overrides: tuple[str, ...]
    config: str


@dataclass(frozen=True, kw_only=True)
class StudyLock:
    """A study as it was locked.

    `design` is its file, whole; `margin` is in points of the average, below which a difference
    does not matter. `code` is the digest of the package and of `conf`, `commit` git's name of it.
    `items` has, by replicate and benchmark, all that its score depends on but the responses: the
    digest of the items too.
    """

    version: int
    created: str
    name: str
    design: Mapping[str, Any]
    primary: Contrast
    secondary: tuple[Contrast, ...]
    margin: float
    development: tuple[int, ...]
    test: tuple[int, ...]
    jobs: tuple[Job, ...]
    items: Mapping[str, Mapping[str, Mapping[str, Any]]]
    code: str
    commit: str | None
    dirty: bool

    def job(self, config: Mapping[str, Any]) -> Job | None:
        """The job whose configuration this is, resolved and whole; None where it is not locked."""
        digest = config_digest(config)
        return next((job for job in self.jobs if job.config == digest), None)

    def role(self, config: Mapping[str, Any], against: Mapping[str, Any]) -> Role:
        """What it is to compare one run with another: exploratory, unless both are test jobs of
        the same replicate and settings, and their arms are a contrast of the study.
        """
        one, other = self.job(config), self.job(against)
        if one is None or other is None or one.replicate not in self.test:
            return Role.EXPLORATORY
        if (one.replicate, one.over) != (other.replicate, other.over):
            return Role.EXPLORATORY
        contrast = Contrast(one.arm, other.arm)
        if contrast == self.primary:
            return Role.PRIMARY
        return Role.SECONDARY if contrast in self.secondary else Role.EXPLORATORY

    def write(self, path: Path) -> None:
        """As JSON; AimError if there is a file already."""
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self), indent=1) + "\n")
        except FileExistsError:
            raise AimError(f"{path}: is locked already; another design is another study") from None


def read_lock(path: Path) -> StudyLock:
    """The lock in the file; AimError if it is not readable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != LOCK_VERSION:
            version = content["version"]
            raise AimError(f"{path}: lock version {version}, this code reads {LOCK_VERSION}")
        return StudyLock(
            **{
                **content,
                "primary": Contrast(**content["primary"]),
                "secondary": tuple(Contrast(**each) for each in content["secondary"]),
                "development": tuple(content["development"]),
                "test": tuple(content["test"]),
                "jobs": tuple(_job(each) for each in content["jobs"]),
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, AimError):
            raise
        raise AimError(f"{path}: not a readable lock ({error})") from error


def config_digest(config: Mapping[str, Any]) -> str:
    """Of a resolved configuration, but for what changes no number; in hex."""
    kept = {key: value for key, value in config.items() if key not in CHANGE_NO_NUMBER}
    return hashlib.sha256(canonical_json(kept).encode()).hexdigest()


def files_digest(folders: Sequence[Path], patterns: Sequence[str]) -> str:
    """Of the files below these that match, by folder's name and theirs in it; in hex."""
    digests = [
        [path.relative_to(root.parent).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()]
        for root in folders
        for path in sorted({path for pattern in patterns for path in root.rglob(pattern)})
    ]
    return hashlib.sha256(canonical_json(digests).encode()).hexdigest()


def _job(content: Mapping[str, Any]) -> Job:
    return Job(**{**content, "overrides": tuple(content["overrides"])})
