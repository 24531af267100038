"""The process that runs untrusted programs, one limited child each. It imports no torch.

Run as a script with an empty folder and a number of bytes of memory. It speaks
length-prefixed JSON: on stdin `{"program", "timeout"}` (in seconds), on stdout
`{"passed", "reason"}`.

What holds a program: limits of the system (time, memory, file size, processes), a session
of its own that is killed whole, no network where the kernel lets us take it away, and an
audit hook that refuses to change files outside the working folder or to start processes.
Inside it, which is the folder of temporary files too, a program does as it likes.
The hook guards against accidents; it would not stop an attacker who knows CPython.

A fork copies each page that either side touches afterwards, which is most of what a
program costs: hence what can be done once, or before the fork, is done there.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import select
import shutil
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import CodeType, ModuleType
from typing import Any, BinaryIO

LINUX = sys.platform == "linux"
FILE_BYTES = 1 << 20
OPEN_FILES = 64
FORBIDDEN_EVENTS = frozenset(
    """
    os.fork os.forkpty os.exec os.posix_spawn os.spawn os.system subprocess.Popen pty.spawn
    os.kill os.killpg signal.pthread_kill socket.connect socket.bind socket.sendto
    os.link os.symlink os.chown
    """.split()
)
CHANGES = {
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.utime": ((0, 3),),
    "shutil.rmtree": ((0, 1),),
    "shutil.move": ((0, None), (1, None)),
}
"""Events that change files: where a path stands among the arguments, and the descriptor of the
folder that it starts from.
"""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main(folder: str, memory: int) -> None:
    """Answer requests until stdin closes."""
    working = os.path.join(os.path.realpath(folder), "answer")
    os.mkdir(working)
    os.environ["TMPDIR"] = working
    _isolate()
    _limit(RLIMIT_FSIZE=FILE_BYTES, RLIMIT_NOFILE=OPEN_FILES, RLIMIT_CORE=0, RLIMIT_AS=memory)
    while request := _read(sys.stdin.buffer):
        _write(sys.stdout.buffer, _run(working=working, **request))


def _isolate() -> None:
    """Once, for all children: no network, and orphans come to this process, which ends them."""
    if not LINUX:
        return
    import ctypes

    libc = ctypes.CDLL(None)
    new_user_and_network_namespace = 0x10000000 | 0x40000000
    libc.unshare(new_user_and_network_namespace)  # where it is not allowed, nothing changes
    set_child_subreaper = 36
    libc.prctl(set_child_subreaper, 1, 0, 0, 0)


def _limit(**limits: int) -> None:
    for name, amount in limits.items():
        with suppress(ValueError, OSError):  # macOS has no limit on memory
            resource.setrlimit(getattr(resource, name), (amount, amount))


def _run(working: str, program: str, timeout: float) -> dict[str, Any]:
    try:
        code = compile(_without_exit(program), "<answer>", "exec")
    except Exception as error:
        return {"passed": False, "reason": type(error).__name__}
    token = os.urandom(16)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        _become_child(code, token, send, working, timeout)
    os.close(send)
    ready, _, _ = select.select([receive], [], [], timeout)
    report = os.read(receive, 256) if ready else b"timeout"
    os.close(receive)
    status = _end(child)
    _empty(working)
    if report == token:
        return {"passed": True, "reason": "passed"}
    return {"passed": False, "reason": report.decode(errors="replace") or _cause(status)}


def _without_exit(program: str) -> ast.Module:
    """The program, less a `sys.exit(0)` in its last line: whoever gets there came to the end."""
    tree = ast.parse(program)
    match tree.body[-1:]:
        case [ast.Expr(ast.Call(call, [] | [ast.Constant(0 | None)], []))] if ast.unparse(call) in (
            "sys.exit",
            "exit",
            "quit",
        ):
            tree.body.pop()
    return tree


def _end(child: int) -> int:
    """Kill the child, its session and its orphans; the child's wait status."""
    with suppress(ProcessLookupError, PermissionError):  # it may not have its session yet
        os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with suppress(ChildProcessError):  # no orphan is left
        while True:
            for orphan in _orphans():
                os.kill(orphan, signal.SIGKILL)
            os.waitpid(-1, 0)
    return status


def _orphans() -> list[int]:
    """The children of this process, after its own child has gone."""
    os.waitpid(-1, os.WNOHANG)  # raises, quickly, where there is none
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:
        return [int(process) for process in listing.read().split()]


def _empty(working: str) -> None:
    if os.listdir(working):
        shutil.rmtree(working)
        os.mkdir(working)


def _cause(status: int) -> str:
    """Why a child ended that reported nothing."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGXCPU:
        return "timeout"
    return signal.Signals(number).name if number not in (0, signal.SIGKILL) else "exited early"


def _become_child(code: CodeType, token: bytes, send: int, working: str, timeout: float) -> None:
    """Run the program and report the token, or why not; never returns."""
    try:
        os.setsid()
        _close_all_but(send)
        os.chdir(working)
        seconds = int(timeout) + 1
        # No new process or thread (the system exempts root), no more time than the clock gives.
        _limit(RLIMIT_NPROC=0, RLIMIT_CPU=seconds)
        sys.addaudithook(_guard(working))
        exec(code, _main_module())
        report = token
    except MemoryError:
        report = b"memory"
    except SystemExit:
        report = b"exited early"
    except BaseException as error:
        report = type(error).__name__.encode()[:200]
    with suppress(OSError):
        os.write(send, report)
    os._exit(0)


def _main_module() -> dict[str, Any]:
    """The names of a new `__main__`, where pickle and type hints look for what it defines."""
    module = ModuleType("__main__")
    vars(module).clear()
    vars(module)["__name__"] = "__main__"
    sys.modules["__main__"] = module
    return vars(module)


def _close_all_but(keep: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.closerange(3, keep)
    os.closerange(keep + 1, OPEN_FILES)


def _guard(working: str) -> Callable[[str, tuple[Any, ...]], None]:
    def check(path: Any, start: int | None = None, free: Sequence[str] = ()) -> None:
        if isinstance(path, int):  # a file that was opened under this guard
            return
        folder = f"/proc/self/fd/{start}" if start is not None and start >= 0 else ""
        real = os.path.realpath(os.path.join(folder, os.fsdecode(path)))
        if real not in free and not real.startswith(working + os.sep):
            raise PermissionError("may change files only in its working folder")

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & WRITING:
                check(path, free=(os.devnull, working))  # the folder: temporary without a name
        elif event in CHANGES:
            for path, start in CHANGES[event]:
                check(arguments[path], None if start is None else arguments[start])
        elif event in FORBIDDEN_EVENTS:
            raise PermissionError(f"{event} is not allowed here")

    return refuse


def _read(stream: BinaryIO) -> dict[str, Any] | None:
    header = stream.read(4)
    if len(header) < 4:
        return None
    (length,) = struct.unpack("!I", header)
    return json.loads(stream.read(length))


def _write(stream: BinaryIO, message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    stream.write(struct.pack("!I", len(body)) + body)
    stream.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
