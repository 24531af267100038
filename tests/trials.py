"""Commands in forks of this process, which has its imports done: killed, and looked at after.

A launcher's workers are processes of their own, as ever.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from command_line import run_here

CHANGES = frozenset(
    "os.mkdir os.rename os.remove os.rmdir os.truncate os.link os.utime shutil.rmtree".split()
)
"""Audit events that change files, beside `open` to write."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PAUSE = 0.1
TICKS = os.sysconf("SC_CLK_TCK")
ENDING = 120.0
"""Seconds in which some process of a command takes CPU time, or ends; else they hang."""
KILLED = -signal.SIGKILL
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER


@dataclass(frozen=True)
class Kill:
    """When a command is killed: behind so many changes of files, or seconds of CPU time.

    `worker`: not its own process, but one of a launcher's, by seconds.
    """

    changes: int | None = None
    seconds: float | None = None
    worker: bool = False

    @property
    def earlier(self) -> Kill:
        """The same by a tenth sooner: no two runs of a command take the same time."""
        return Kill(
            self.changes and int(0.9 * self.changes),
            self.seconds and 0.9 * self.seconds,
            self.worker,
        )


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command did."""

    status: int
    seconds: float
    """CPU time of its processes."""
    begun: float
    """What of it went before the first work in the cache."""
    changes: int
    killed: bool
    """It, or a worker of it."""


@dataclass
class Trial:
    """A folder for commands, with a folder for temporary files of its own."""

    folder: Path
    arguments: tuple[str, ...] = ()

    def run(
        self, *arguments: str, kill: Kill = Kill(), before: Callable[[], None] | None = None
    ) -> Ended:
        """`python run.py ARGUMENTS` in the folder; `before` changes the fork before it starts."""
        (ended,) = self.wait(self.start(*arguments, kill=kill, before=before), kill=kill)
        return ended

    def start(
        self, *arguments: str, kill: Kill = Kill(), before: Callable[[], None] | None = None
    ) -> int:
        """The fork's process number."""
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1)
        sys.stdout.flush()
        if child := os.fork():
            return child
        status = 1
        try:
            self._prepare(kill)
            if before:
                before()
            done = run_here(*arguments, cwd=self.folder)
            status = done.returncode
            os.write(1, (done.stdout + done.stderr).encode())
            atexit._run_exitfuncs()
        except BaseException:
            os.write(1, traceback.format_exc().encode())
        os._exit(status)

    def wait(self, *children: int, kill: Kill = Kill()) -> list[Ended]:
        """Until they have ended, and all that they started."""
        ends: dict[int, int] = {}
        seconds = begun = 0.0
        since, before, leases = time.monotonic(), {}, self.folder / "cache" / "leases"
        due, hit = kill.seconds is not None, False
        while family := _family():
            if family != before:
                before, since = family, time.monotonic()
            seconds = max(seconds, sum(family.values()))
            begun = begun if leases.exists() else seconds
            if due and not ends and seconds >= (kill.seconds or 0):
                victims = filter(_is_worker, family) if kill.worker else children
                for victim in islice(victims, 1):
                    os.kill(victim, signal.SIGKILL)
                    due, hit = False, kill.worker
            for pid in family:
                ended, status = os.waitpid(pid, os.WNOHANG) if _is_ours(pid) else (0, 0)
                if ended in children:
                    ends[ended] = os.waitstatus_to_exitcode(status)
                    since = time.monotonic()
            if time.monotonic() - since > ENDING:
                for pid in family:
                    os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"{self.folder}: {len(family)} processes did not end")
            time.sleep(PAUSE)
        return [
            Ended(
                status=ends[each],
                seconds=seconds,
                begun=begun,
                changes=self._changes(each),
                killed=hit or ends[each] == KILLED,
            )
            for each in children
        ]

    @property
    def log(self) -> str:
        """What the commands that were not killed wrote."""
        return (self.folder / "log").read_text(errors="replace")

    def _changes(self, child: int) -> int:
        counted = self.folder / f"changes-{child}"
        changes = int(counted.read_text()) if counted.exists() else 0
        counted.unlink(missing_ok=True)
        return changes

    def _prepare(self, kill: Kill) -> None:
        os.setsid()
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TMPDIR"] = str(self.folder / "tmp")
        tempfile.tempdir = None
        main, count = os.getpid(), 0

        def hook(event: str, values: tuple[object, ...]) -> None:
            nonlocal count
            flags = values[2] if event == "open" else 0
            changes = event in CHANGES or (isinstance(flags, int) and flags & WRITING)
            if changes and os.getpid() == main:
                count += 1
                if kill.changes == count:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

        def note() -> None:
            if os.getpid() == main:
                (self.folder / f"changes-{main}").write_text(str(count))

        atexit.register(note)


def _family() -> dict[int, float]:
    """CPU seconds of the processes that this one started, and of their children."""
    parents, seconds = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.name)] = int(fields[1])
        seconds[int(path.name)] = sum(map(int, fields[11:15])) / TICKS
    me = os.getpid()
    mine = [pid for pid, parent in parents.items() if parent == me]
    for pid in mine:
        mine += [each for each, parent in parents.items() if parent == pid]
    return {pid: seconds[pid] for pid in mine}


def _is_worker(pid: int) -> bool:
    """Whether it is one of joblib's, where tasks are carried out."""
    try:
        return b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _is_ours(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[1] == str(os.getpid())
