"""What a sweep was asked for: `sweep.json` in its directory, written before its first job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from aim_exp.store.files import write_whole
from aim_exp.store.run_record import SHARED_FOLDER

FILE_NAME = "sweep.json"
SCHEMA_VERSION = 1
STOP_FILE = "stop"
"""In a sweep's directory: jobs that have not begun end as not run. Its text says why."""
STAGES_FOLDER = f"{SHARED_FOLDER}/stages"
"""There too: a folder for each shared stage that was done before the jobs."""
FAILED_FILE = "failed"
"""In a shared stage's folder: why those that need it fail."""


@dataclass(frozen=True)
class SweepJob:
    """A job asked for: its folder below the sweep's directory, and its overrides."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """All jobs in their order; none where the sweeper finds its values as it goes."""

    created: str
    command: str
    jobs: tuple[SweepJob, ...]

    def write(self, directory: Path) -> None:
        """Write `sweep.json`, whole or not at all."""
        directory.mkdir(parents=True, exist_ok=True)
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        write_whole(directory / FILE_NAME, json.dumps(content, indent=1) + "\n")


def begin_anew(directory: Path) -> None:
    """What an earlier attempt at the sweep ended by, ends none of its jobs now."""
    (directory / STOP_FILE).unlink(missing_ok=True)
    for failed in (directory / STAGES_FOLDER).glob(f"*/{FAILED_FILE}"):
        failed.unlink()


def read_sweep(directory: Path) -> Sweep | None:
    """What is listed in the directory; None where nothing is, or not readably."""
    try:
        content = json.loads((directory / FILE_NAME).read_bytes())
        jobs = tuple(
            SweepJob(str(job["name"]), _texts(job["overrides"])) for job in content["jobs"]
        )
        return Sweep(str(content["created"]), str(content["command"]), jobs)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _texts(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(str, values))
