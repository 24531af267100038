"""What a store holds, whose it is, and whether it is whole: du, gc and verify.

What killed processes leave behind goes without being asked: `leftovers`.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from aim_exp.store.entries import BEGUN, DAMAGED, LEASES, PARTIAL, SPEC_FILE
from aim_exp.store.integrity import DIGESTS_FILE, damage
from aim_exp.store.leases import wait
from aim_exp.store.lines import read_lines
from aim_exp.store.processes import settled, used
from aim_exp.store.run_record import RunRecord

KEY = re.compile("[0-9a-f]{64}")
NOTES = ("digests", "layouts")
"""Of models' files, by a digest too; they are no entries."""
LEFT_OVER = (DAMAGED, PARTIAL, BEGUN)
"""What was set aside, and what a killed process left unfinished: of use to nobody by name."""


@dataclass(frozen=True)
class Entry:
    """A folder of the store."""

    name: str
    """`STAGE/KEY`; of what is left over `damaged/STAGE-KEY.1`, `partial/STAGE-KEY.TOKEN`, ..."""
    path: Path

    @property
    def stage(self) -> str:
        """The stage that made it, `damaged`, `partial` or `begun`."""
        return self.name.partition("/")[0]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.lstat().st_size for path in (self.path, *self.path.rglob("*")))

    @property
    def age(self) -> float:
        """Seconds since something was written in it."""
        return time.time() - max(p.lstat().st_mtime for p in (self.path, *self.path.rglob("*")))

    @property
    def logs(self) -> list[Path]:
        """Its files of lines with a checksum each."""
        return sorted(self.path.glob("*.jsonl"))

    @property
    def grows(self) -> bool:
        """Whether it fills bit by bit, and has no digests."""
        names = {path.name for path in self.path.glob("*")}
        return (
            SPEC_FILE in names and DIGESTS_FILE not in names and bool(self.logs or len(names) == 1)
        )

    @property
    def lease(self) -> str:
        """The name of the lease of who makes it: `STAGE-KEY`."""
        stage, _, rest = self.name.partition("/")
        return rest.lstrip(".").partition(".")[0] if stage in LEFT_OVER else f"{stage}-{rest}"


def entries(root: Path) -> list[Entry]:
    """All that the store holds, in the order of the names."""
    return [
        Entry(f"{stage.name}/{path.name}", path)
        for stage in sorted(path for path in root.iterdir() if path.is_dir())
        for path in sorted(stage.iterdir())
        if stage.name in LEFT_OVER or (stage.name not in NOTES and KEY.fullmatch(path.name))
    ]


def unneeded(root: Path, names: set[str]) -> list[Entry]:
    """All but the entries of these names, and what is begun of them."""
    leases = {name.replace("/", "-") for name in names}
    return [
        entry
        for entry in entries(root)
        if entry.name not in names
        and not (entry.stage in (PARTIAL, BEGUN) and entry.lease in leases)
    ]


def needed(records: Iterable[RunRecord]) -> set[str]:
    """The names of the entries that the runs rest on, whether they are done or not."""
    names: set[str] = set()
    for record in records:
        names.update(key for stage in record.stages for key in stage.keys)
        names.update(
            f"{stage}/{model.keys[stage]}"
            for model in record.models
            for stage in ("weights", "responses")
            if stage in model.keys
        )
    return names


def damages(entry: Entry) -> Iterator[str]:
    """What is wrong with an entry, a line each: `FILE: why`."""
    if not entry.grows and (problem := damage(entry.path, entry.name)):
        yield problem
    for log in entry.logs:
        if hurt := read_lines(log, entry.path.name).damaged:
            yield f"{log}: {hurt} of its lines are damaged"


def delete(root: Path, entry: Entry) -> bool:
    """Delete an entry, unless a process uses it, makes it, or adds to it, now."""
    with settled(root):
        if entry.lease in {name.replace("/", "-") for name in used(root)}:
            return False
        looks = count()  # at the first a lease of a dead process is broken
        lease = wait(root / LEASES / entry.lease, entry.name, done=lambda: next(looks) == 2)
        if lease is None:
            return False
        try:
            away = root / PARTIAL / f".{lease.token}"
            away.parent.mkdir(exist_ok=True)
            entry.path.rename(away)
        finally:
            lease.release()
    shutil.rmtree(away) if away.is_dir() else away.unlink()
    return True
