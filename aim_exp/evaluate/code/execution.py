"""Running the code that models write: limited, apart from this process, one at a time.

One warm worker process (`worker`, which says what holds a program) forks two children per program,
so that a verdict takes milliseconds although this process is large.
"""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from aim_exp.evaluate.code.exchange import Gone, Link
from aim_exp.evaluate.code.walls import WALLS
from aim_exp.store.processes import temporary_folder

TIMEOUT = 3.0
"""Seconds of wall-clock time per program."""
MEMORY = 512 << 20
"""Bytes of address space per program."""

_GRACE = 10.0
"""Seconds beyond the timeout after which the worker itself counts as hung."""
_FAREWELL = 0.3
"""Seconds for a worker to end by itself, with all that is in its namespace."""
_START = 60.0
"""Seconds after which a worker that has said nothing yet does."""
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Outcome:
    """Whether a program ran to its end; why not: `timeout`, `memory`, an exception's name..."""

    passed: bool
    reason: str


class CodeRunner:
    """Runs programs in a worker, which starts with the first one and again if it died.

    A program's outcome is remembered, unless it ran out of time: models that differ little
    write many of the same programs.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._known: dict[tuple[str, str, float], Outcome] = {}
        self.missing: tuple[str, ...] = ()
        """What nothing holds on this system, in words; known with the first program."""

    def passes(self, answer: str, tests: str = "", timeout: float = TIMEOUT) -> Outcome:
        """Run `answer`, then `tests` on what it defines: they fail unless they come to their end.

        Both have `timeout` seconds together. The tests run in a process of their own, where
        nothing that the answer does can print the verdict; without tests the answer has the word.
        """
        key = answer, tests, timeout
        known = self._known.get(key)
        if known is not None:
            return known
        outcome = self._run({"answer": answer, "tests": tests, "timeout": timeout})
        if outcome.reason != "timeout":
            self._known[key] = outcome
        return outcome

    def close(self) -> None:
        """End the worker and remove its folder; the next program starts another."""
        if self._worker is not None:
            with suppress(OSError, ValueError, subprocess.TimeoutExpired):
                self._worker.communicate(timeout=_FAREWELL)  # it ends with its standard input
            self._worker.kill()
            self._worker.communicate()
            self._worker = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> CodeRunner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, request: dict[str, Any]) -> Outcome:
        for _ in range(2):  # another hand may have killed the worker; twice, it is the program
            try:
                return Outcome(**self._ask(request))
            except (OSError, Gone):
                self.close()
            except BaseException:  # Ctrl-C: the reply that is still to come must not be read later
                self.close()
                raise
        return Outcome(passed=False, reason="worker died")

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._worker is None:
            self._folder = temporary_folder("code")
            self._worker = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "aim_exp.evaluate.code.worker",
                 self._folder.name, str(MEMORY)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self._folder.name,
                # Sets iterate alike in every run; numpy, if an answer imports it, has no threads.
                env={"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
                     "PYTHONPATH": str(_ROOT)},
                start_new_session=True,  # Ctrl-C is for this process
            )  # fmt: skip
            standing = _reply(_link(self._worker), _START)
            self.missing = tuple(without for wall, without in WALLS.items() if wall not in standing)
        link = _link(self._worker)
        link.write(request)
        return _reply(link, request["timeout"] + _GRACE)


@cache
def runner() -> CodeRunner:
    """The process's own runner, closed at exit."""
    shared = CodeRunner()
    Finalize(None, shared.close, exitpriority=0)  # in a launcher's workers, too
    return shared


def _link(worker: subprocess.Popen[bytes]) -> Link:
    assert worker.stdin
    assert worker.stdout
    return Link(worker.stdout.fileno(), worker.stdin.fileno())


def _reply(link: Link, seconds: float) -> Any:
    """The next message. Raises Gone if none comes in time."""
    if not select.select([link.receive], [], [], seconds)[0]:
        raise Gone
    return link.read()
