"""Leases: who makes an entry, where several processes of several machines share a store.

Right by `rename` alone, since locks of network file systems cannot be trusted. A lease is a folder
that holds one file, called as the holder's token. To rename a folder to its name takes it: that
fails where the name is a folder that is not empty. The file is written anew every few seconds;
whoever waits takes the lease from a holder that is silent, or dead on the waiter's own machine.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from aim_exp.console import console, print_warning
from aim_exp.store.files import marked_name

BEAT = 5.0
"""Seconds between a holder's signs of life."""
SILENCE = 60.0
"""Seconds, by the waiter's own clock, after which a holder that gave none has lost its lease."""
PAUSE = 0.1
"""Seconds between a waiter's looks."""
WORTH_A_LINE = 2.0
"""Seconds of waiting; for less nothing is printed."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lease."""

    host: str
    space: str
    """Where its number means it: containers may have one host's name and numbers of their own."""
    pid: int
    started: str
    """Tells it from a later process with its number; empty where the system does not say."""

    def __str__(self) -> str:
        return f"{self.host} (process {self.pid})"

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended; False of other machines' processes."""
        here = this_process()
        if (self.host, self.space) != (here.host, here.space):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return _started(self.pid) != self.started


def this_process() -> Holder:
    """What a lease that is taken now says of its holder."""
    pid = os.getpid()
    return Holder(socket.gethostname(), _space(), pid, _started(pid))


class Lease:
    """Held until `release`, unless another process takes it over: see `held`."""

    def __init__(self, path: Path, token: str) -> None:
        self.token = token
        self._path = path
        self._released = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    @property
    def held(self) -> bool:
        """Whether nobody took it over."""
        try:
            (self._path / self.token).open().close()  # network file systems ask anew, to open
        except FileNotFoundError:
            return False
        return True

    def release(self) -> None:
        """Let others take it."""
        self._released.set()
        self._beating.join()
        free(self._path, self.token)

    def _beat(self) -> None:
        count = 0
        while not self._released.wait(BEAT):
            count += 1
            try:  # "r+": where another one holds it there is no such file
                with (self._path / self.token).open("r+") as file:
                    file.write(_sign(count))
            except FileNotFoundError:
                return
            except OSError:
                continue  # the file system is away, too


def take(path: Path) -> Lease | None:
    """The lease at `path`; None where another one holds it."""
    token = marked_name()
    own = path.with_name(f".{token}")
    own.mkdir(parents=True)
    try:
        (own / token).write_text(_sign(0))
        own.rename(path)
    except BaseException as error:  # Ctrl-C too leaves nothing
        shutil.rmtree(own, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return None
        raise
    return Lease(path, token)


def wait(path: Path, what: str, done: Callable[[], bool] = lambda: False) -> Lease | None:
    """The lease at `path`, when it is free; None as soon as `done`, without it.

    `what` it is for is printed with the name of the holder that is waited for.
    """
    began = heard = time.monotonic()
    last = ("", "")
    announced = False
    while not done():
        if lease := take(path):
            return lease
        holder, token, sign = _look(path)
        now = time.monotonic()
        if (token, sign) != last:
            last, heard = (token, sign), now
        if not announced and holder and now - began > WORTH_A_LINE:
            console.print(f"waiting for {holder}: {what}", soft_wrap=True, markup=False)
            announced = True
        if token and ((holder and holder.is_dead) or now - heard > SILENCE):
            if now - heard > SILENCE:
                silent = f"{holder or path.name} gave no sign of life for {SILENCE:g} s"
                print_warning(console, f"{silent}: taking over: {what}")
            free(path, token)
        else:
            time.sleep(PAUSE)
    return None


def _look(path: Path) -> tuple[Holder | None, str, str]:
    """Who holds it, by what token, and the last sign of life; empty where it is free."""
    token = ""
    with suppress(OSError, ValueError):  # free again, or read while it was written
        (file,) = path.iterdir()
        token = file.name
        sign = file.read_text()
        content = json.loads(sign)
        del content["beat"]
        return Holder(**content), token, sign
    return None, token, ""


def free(path: Path, token: str) -> None:
    """Free the lease of that token; of another token's, nothing."""
    if not (path / token).exists():
        return
    away = path.with_name(f".{marked_name()}")
    try:
        path.rename(away)
    except OSError:
        return  # another waiter was faster
    if not (away / token).exists():  # and another one has it by now: not ours to break
        with suppress(OSError):
            away.rename(path)
            return
    shutil.rmtree(away, ignore_errors=True)


def _sign(count: int) -> str:
    return json.dumps({**asdict(this_process()), "beat": f"{count:12}"})


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """In the system's own units; empty of a process that has ended and nobody has asked about."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]
    except (OSError, IndexError):
        return ""
