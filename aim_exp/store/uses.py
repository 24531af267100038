"""What living processes use, told while they do: nothing of it is deleted."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aim_exp.store.entries import LEASES
from aim_exp.store.leases import Lease, holder_of, take, wait

USES = "uses"
"""In a store, a lease for each user; in it `NAMES_FILE`, a line for each entry, `STAGE/KEY`."""
NAMES_FILE = "names"
GONE = 3600.0
"""Seconds without a sign of life after which a process of another machine uses nothing."""


@contextmanager
def using(root: Path, names: Iterable[str]) -> Iterator[None]:
    """As long as it lasts nobody deletes these entries, or what there will be of them.

    Where the store cannot be written nothing is told, nor can anything be deleted there.
    """
    lease: Lease | None = None
    with suppress(OSError), settled(root):
        used(root)
        path = root / USES / uuid.uuid4().hex
        lease = take(path)
        (path / NAMES_FILE).write_text("\n".join(sorted(names)))
    try:
        yield
    finally:
        if lease:
            lease.release()


@contextmanager
def settled(root: Path) -> Iterator[None]:
    """As long as it lasts no other process says what it uses, or deletes what is not used."""
    lease = wait(root / LEASES / USES, "what is used in the cache")
    assert lease
    try:
        yield
    finally:
        lease.release()


def used(root: Path) -> set[str]:
    """The names of the entries that living processes use; what ended ones left goes."""
    names: set[str] = set()
    for use in (root / USES).glob("[!.]*"):
        with suppress(OSError):  # it ends just now
            if _ended(use):
                shutil.rmtree(use)
            else:
                names.update((use / NAMES_FILE).read_text().split("\n"))
    return names


def _ended(use: Path) -> bool:
    (sign,) = (path for path in use.iterdir() if path.name != NAMES_FILE)
    holder = holder_of(sign.read_text())
    return bool(holder and holder.is_dead) or time.time() - sign.stat().st_mtime > GONE
