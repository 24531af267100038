"""The store: one folder per content key, made once, shared by every job of every sweep.

`ROOT/STAGE/KEY/` holds what the stage made, `spec.json`, its ingredients, and `made.json`, what
it took. An entry is made in a temporary folder and renamed into place, so that an entry that
exists is whole, whatever was killed. A lock per key lets one process make and the others wait.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from aim_exp.store.keys import StageSpec
from aim_exp.store.provenance import machine, machine_text

MADE_FILE = "made.json"


@dataclass(frozen=True)
class Made:
    """What an entry took when it was made, whoever uses it now."""

    seconds: float
    """Of the attempt that finished it."""
    machine: str


class Store:
    """Get or make by content key, under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def path(self, spec: StageSpec) -> Path:
        """Where the entry lies, whether it exists or not."""
        return self.root / spec.stage / spec.key

    def has(self, spec: StageSpec) -> bool:
        """Whether the entry is there, whole."""
        return self.path(spec).is_dir()

    def get_or_make(
        self,
        spec: StageSpec,
        make: Callable[[Path], None],
        *,
        resumes: bool = False,
        since: float | None = None,
    ) -> Path:
        """The entry's folder; if it is missing, `make(folder)` fills a temporary one first.

        `resumes`: when it is cut off, the next `make` finds in the folder what is done. `since`
        is when the work on it began, by `time.monotonic`, if that was before `make`.
        """
        final = self.path(spec)
        if final.is_dir():
            return final
        with self.lock(spec):
            if final.is_dir():  # another process made it while this one waited
                return final
            partial = self.root / "partial" / f"{spec.stage}-{spec.key}"
            if not resumes:
                shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True, exist_ok=True)
            began = time.monotonic() if since is None else since
            try:
                make(partial)
                _describe(spec, partial)
                _describe_making(time.monotonic() - began, partial)
                final.parent.mkdir(parents=True, exist_ok=True)
                partial.rename(final)
            finally:
                if not resumes:
                    shutil.rmtree(partial, ignore_errors=True)
        return final

    def made(self, spec: StageSpec) -> Made | None:
        """What the entry took; None where there is none, or it was made bit by bit."""
        try:
            return Made(**json.loads((self.path(spec) / MADE_FILE).read_text()))
        except FileNotFoundError:
            return None

    @contextmanager
    def growing(self, spec: StageSpec) -> Iterator[Path]:
        """The folder of an entry that fills bit by bit and is of use unfinished; locked."""
        with self.lock(spec):
            folder = self.path(spec)
            if not folder.is_dir():
                folder.mkdir(parents=True)
            _describe(spec, folder)
            yield folder

    def lock(self, spec: StageSpec) -> FileLock:
        """A lock between processes; the system frees it when its holder dies."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{spec.stage}-{spec.key}")


def _describe(spec: StageSpec, folder: Path) -> None:
    text = json.dumps(
        {"stage": spec.stage, "version": spec.version, "spec": spec.spec}, indent=1, sort_keys=True
    )
    (folder / "spec.json").write_text(text + "\n")


def _describe_making(seconds: float, folder: Path) -> None:
    made = Made(round(seconds, 3), machine_text(machine()))
    (folder / MADE_FILE).write_text(json.dumps(asdict(made)) + "\n")
