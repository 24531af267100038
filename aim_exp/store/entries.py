"""The store: one folder per content key, made once, shared by every job of every sweep.

`ROOT/STAGE/KEY/` holds what the stage made, `spec.json`, its ingredients, `made.json`, what it
took, and `digests.json`, by which an entry that was changed since is noticed: it goes to
`ROOT/damaged/` and is made again. An entry is made in a temporary folder and renamed into place, so
that an entry that exists is whole, whatever was killed. A lease per key lets one process make and
the others wait; a process that was taken over cannot publish, since its folder is no longer where
it was.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from aim_exp.console import console, print_warning
from aim_exp.store.files import named, publish
from aim_exp.store.integrity import damage, seal
from aim_exp.store.leases import Lease, take, wait
from aim_exp.store.provenance import machine, machine_text
from aim_exp.store.stage_spec import StageSpec

MADE_FILE = "made.json"
SPEC_FILE = "spec.json"
DAMAGED, PARTIAL, BEGUN, LEASES = "damaged", "partial", "begun", "leases"
"""Folders of the store that hold no entries. What lies in `begun` goes on when it is made again."""


@dataclass(frozen=True)
class Made:
    """What an entry took when it was made, whoever uses it now."""

    seconds: float
    """Of the attempt that finished it."""
    machine: str
    at: float | None = None
    """When it was finished: Unix time; None where it is not known."""


class Store:
    """Get or make by content key, under `root`, which `key` names in errors."""

    def __init__(self, root: Path, key: str = "cache_dir") -> None:
        self.root = root.resolve()
        self._key = key
        self.waited = 0.0
        """Seconds that this object's users waited for other processes."""

    def path(self, spec: StageSpec) -> Path:
        """Where the entry lies, whether it exists or not."""
        return self.root / spec.stage / spec.key

    def has(self, spec: StageSpec) -> bool:
        """Whether the entry is there, as it was made."""
        return damage(self.path(spec), spec.name) is None

    def mended(self, spec: StageSpec) -> Path:
        """Where the entry lies, for who looks before it is made: what is damaged is not there."""
        path = self.path(spec)
        if path.exists() and not self.has(spec):
            with self._leased(spec, done=lambda: self.has(spec)) as lease:
                if lease:
                    self._set_aside(spec)
        return path

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
        is when the work on it began, by `time.monotonic`, if that was before `make`; what the entry
        took is measured here unless `make` leaves it in `MADE_FILE`.
        """
        final = self.path(spec)
        while not self.has(spec):
            with self._leased(spec, done=lambda: self.has(spec)) as lease:
                if lease is None or self.has(spec):  # made while this process waited
                    break
                self._set_aside(spec)
                partial = self._partial(spec, lease, resumes)
                began = time.monotonic() if since is None else since
                try:
                    make(partial)
                    _describe(spec, partial)
                    if not (partial / MADE_FILE).exists():
                        _describe_making(time.monotonic() - began, partial)
                    seal(partial, spec.name)
                    final.parent.mkdir(parents=True, exist_ok=True)
                    publish(partial, final)
                except Exception:
                    if lease.held and not final.is_dir():
                        raise
                    print_warning(console, f"{spec.title}: another process took it over")
                finally:
                    if not resumes:
                        shutil.rmtree(partial, ignore_errors=True)
        return final

    def _partial(self, spec: StageSpec, lease: Lease, resumes: bool) -> Path:
        """This attempt's own folder; those of earlier ones end here, or go on in it."""
        folder, name = self.root / (BEGUN if resumes else PARTIAL), f"{spec.stage}-{spec.key}"
        own = folder / f"{name}.{lease.token}"
        for earlier in folder.glob(f"{name}.*"):
            if resumes and not own.exists():
                earlier.rename(own)
            else:
                ended = earlier.rename(folder / f".{lease.token}")  # at once, for who writes there
                shutil.rmtree(ended, ignore_errors=True)
        own.mkdir(parents=True, exist_ok=True)
        return own

    def _set_aside(self, spec: StageSpec) -> None:
        """What lies in the entry's place and is not it; its lease must be held."""
        path = self.path(spec)
        if not path.exists() or not (problem := damage(path, spec.name)):
            return
        names = (f"{spec.stage}-{spec.key}.{number}" for number in itertools.count(1))
        aside = next(p for name in names if not (p := self.root / DAMAGED / name).exists())
        aside.parent.mkdir(exist_ok=True)
        path.rename(aside)
        print_warning(console, f"{problem}: set aside in {aside}, to be made again")

    def made(self, spec: StageSpec) -> Made | None:
        """What the entry took; None where there is none, or it was made bit by bit."""
        try:
            return Made(**json.loads((self.path(spec) / MADE_FILE).read_text()))
        except FileNotFoundError:
            return None

    @contextmanager
    def growing(self, spec: StageSpec) -> Iterator[Path]:
        """The folder of an entry that fills bit by bit and is of use unfinished; leased.

        Who writes there writes files of their own: a holder that was taken over may still write.
        """
        with self._leased(spec):
            folder = self.path(spec)
            if not folder.is_dir():
                folder.mkdir(parents=True)
            _describe(spec, folder)
            yield folder

    @contextmanager
    def _leased(
        self, spec: StageSpec, done: Callable[[], bool] = lambda: False
    ) -> Iterator[Lease | None]:
        """The lease of an entry; None as soon as it is `done`."""
        path = self.root / LEASES / f"{spec.stage}-{spec.key}"
        with named(spec.title, self.root, self._key):
            lease, began = take(path), time.monotonic()
            if lease is None:
                lease = wait(path, spec.title, done)
                self.waited += time.monotonic() - began
            try:
                yield lease
            finally:
                if lease:
                    lease.release()


def _describe(spec: StageSpec, folder: Path) -> None:
    text = json.dumps(
        {"stage": spec.stage, "version": spec.version, "spec": spec.spec}, indent=1, sort_keys=True
    )
    (folder / SPEC_FILE).write_text(text + "\n")


def _describe_making(seconds: float, folder: Path) -> None:
    made = Made(round(seconds, 3), machine_text(machine()), round(time.time(), 3))
    (folder / MADE_FILE).write_text(json.dumps(asdict(made)) + "\n")
