"""The process that runs untrusted programs, each in a limited child. It imports no torch.

Run as a module with an empty folder and a number of bytes of memory. It speaks length-prefixed
JSON: first on stdout the names of the walls that stand, then on stdin `{"answer", "tests",
"timeout"}` (in seconds), on stdout `{"passed", "reason"}`.

The child runs the answer, this process its tests, on what the child shows of it (`exchange`): so
the verdict is out of the answer's reach. What holds both: the kernel's walls (`walls`), and limits
on memory and file sizes. What holds the child besides: no processes, and
an audit hook that refuses to change files outside the working folder or to start processes. Where
the walls stand, the hook only says sooner what they would; elsewhere it guards against accidents,
and would not stop an attacker who knows CPython. In the folder, which is that of temporary files
too, a program does as it likes.

A fork copies each page that either side touches afterwards, which is most of what a
program costs: hence what can be done once, or before the fork, is done there.
"""

import ast
import gc
import marshal
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import CodeType, ModuleType
from typing import Any

from aim_exp.evaluate.code import walls
from aim_exp.evaluate.code.exchange import Gone, Link
from aim_exp.evaluate.code.far import Tests
from aim_exp.evaluate.code.near import Near

FILE_BYTES = 1 << 20
FOLDER_BYTES = 16 << 20
OPEN_FILES = 64
SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/lib", "/lib64", "/etc/ld.so.cache",
          "/dev/urandom")  # fmt: skip
"""What Python reads besides its own folders."""
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


class _TimeIsUp(BaseException):
    """The program's time."""


EXIT = re.compile(r"(exit|quit)\([^)]*\)\s*$")
"""How a program may end; what else looks like it does no harm."""
REASONS = {MemoryError: "memory", SystemExit: "exited early", _TimeIsUp: "timeout"}
"""Other exceptions are called by their name."""


def main(folder: str, memory: int) -> None:
    """Answer requests until stdin closes."""
    host = Link(os.dup(0), os.dup(1))
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)
    working = os.path.join(os.path.realpath(folder), "answer")
    os.mkdir(working)
    os.environ["TMPDIR"] = working
    standing = _put_up_walls(working)
    os.chdir(working)
    _limit(RLIMIT_FSIZE=FILE_BYTES, RLIMIT_NOFILE=OPEN_FILES, RLIMIT_CORE=0, RLIMIT_AS=memory)
    signal.signal(signal.SIGALRM, _time_is_up)
    host.write(standing)
    gc.freeze()
    child = _Child(working)
    with suppress(Gone):
        while True:
            host.write(_run(child, working, **host.read()))
            if child.used:  # while the next program is on its way
                child = _Child(working)


def _time_is_up(*_: object) -> None:
    raise _TimeIsUp


def _put_up_walls(working: str) -> list[str]:
    """Round this process and all its children; which of them stand."""
    sys.path[:] = [path for path in sys.path if path != os.environ.get("PYTHONPATH")]
    standing = []
    if walls.LINUX:  # an answer and its tests wait for each other: quicker on one processor
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[os.getpid() % len(processors)]})
    if walls.new_namespaces():
        if inside := os.fork():
            os.waitpid(inside, 0)
            os._exit(0)
        if walls.memory_folder(working, FOLDER_BYTES):
            standing.append("namespaces")
    walls.drop_privileges()
    if walls.keep_files([sys.prefix, sys.base_prefix, *sys.path, *SYSTEM], working):
        standing.append("landlock")
    if walls.refuse_calls():
        standing.append("seccomp")
    return standing


def _limit(**limits: int) -> None:
    for name, amount in limits.items():
        with suppress(ValueError, OSError):  # macOS has no limit on memory
            resource.setrlimit(getattr(resource, name), (amount, amount))


class _Child:
    """A process that waits, limited already, for the answer that it is to run."""

    def __init__(self, working: str) -> None:
        to_answer, from_tests = os.pipe()
        to_tests, from_answer = os.pipe()
        self.used = False
        self.process = os.fork()
        if self.process == 0:
            try:
                _limit_child(to_answer, from_answer, working)
                link = Link(to_answer, from_answer)
                code = marshal.loads(bytes.fromhex(link.read()["code"]))
                Near(link).serve(lambda: _names(code))
            finally:
                os._exit(0)
        os.close(to_answer)
        os.close(from_answer)
        self.link = Link(to_tests, from_tests)

    def end(self) -> int:
        """Kill it; its wait status."""
        os.kill(self.process, signal.SIGKILL)
        return os.waitpid(self.process, 0)[1]


def _run(child: _Child, working: str, answer: str, tests: str, timeout: float) -> dict[str, Any]:
    try:
        code = _compiled(answer, ends=not tests.strip())
        checks = _compiled(tests, ends=True)
    except Exception as error:
        return {"passed": False, "reason": REASONS.get(type(error)) or type(error).__name__}
    child.used = True
    with child.link as link:
        link.write({"code": marshal.dumps(code).hex()})
        reason = _verdict(Tests(link), checks, timeout)
        status = child.end()
    _empty(working)
    return {"passed": reason == "passed", "reason": reason or _cause(status)}


def _limit_child(receive: int, send: int, working: str) -> None:
    """What holds an answer besides the walls. It has no other files, and is in its folder."""
    first, second = sorted((receive, send))
    for start, end in ((3, first), (first + 1, second), (second + 1, OPEN_FILES)):
        os.closerange(start, end)
    if not walls.refuse_processes():
        _limit(RLIMIT_NPROC=0)  # threads as well, and the system exempts root
    sys.addaudithook(_guard(working))


def _names(answer: CodeType) -> dict[str, Any]:
    """What the answer defines for its tests."""
    names = _main_module()
    exec(answer, names)
    return {
        name: value
        for name, value in names.items()
        if isinstance(name, str) and not (name.startswith("__") and name.endswith("__"))
    }


def _verdict(answer: Tests, tests: CodeType, timeout: float) -> str:
    """`passed` where the tests came to their end; empty where the answer's process has ended."""
    signal.setitimer(signal.ITIMER_REAL, timeout, 0.1)  # again, should they catch everything
    try:
        names = _main_module()
        names |= answer.names()
        exec(tests, names)
        reason = "passed"
    except Gone:
        reason = ""
    except BaseException as error:
        reason = REASONS.get(type(error)) or type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return reason


def _compiled(source: str, *, ends: bool) -> CodeType:
    """`ends`: the program does."""
    if ends and EXIT.search(source):
        return compile(_without_exit(ast.parse(source)), "<answer>", "exec")
    return compile(source, "<answer>", "exec", dont_inherit=True)


def _without_exit(tree: ast.Module) -> ast.Module:
    """The program, less a `sys.exit(0)` in its last line: whoever gets there came to the end."""
    match tree.body[-1:]:
        case [ast.Expr(ast.Call(call, [] | [ast.Constant(0 | None)], []))] if ast.unparse(call) in (
            "sys.exit",
            "exit",
            "quit",
        ):
            tree.body.pop()
    return tree


def _empty(working: str) -> None:
    if not os.listdir(working):
        return
    for folder, folders, _ in os.walk(working):
        for inner in (os.path.join(folder, name) for name in folders):
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)  # an answer may have closed it to its owner
    for entry in os.scandir(working):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry)
        else:
            os.remove(entry)


def _cause(status: int) -> str:
    """Why a child ended that reported nothing."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return signal.Signals(number).name if number not in (0, signal.SIGKILL) else "exited early"


def _main_module() -> dict[str, Any]:
    """The names of a new `__main__`, where pickle and type hints look for what it defines."""
    module = ModuleType("__main__")
    vars(module).clear()
    vars(module)["__name__"] = "__main__"
    sys.modules["__main__"] = module
    return vars(module)


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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
