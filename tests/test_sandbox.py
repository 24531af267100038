"""Programs that mean harm, by class: what each would do, and that it cannot.

`{kept}` is a file outside, `{folder}` the folder it is in. A program ends with an error, or quietly
where it can be that nothing came of what it did; then a check says so.
"""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aim_exp.evaluate.code.execution import MEMORY, CodeRunner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
C = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef need(done):\n" \
    "    if done < 0: raise OSError(ctypes.get_errno(), 'refused')\n"  # fmt: skip

REFUSED = {
    "read": [
        "open({kept!r}).read()",
        "import os; os.read(os.open({kept!r}, os.O_RDONLY), 9)",
        "import os; os.listdir({folder!r})",
        "import glob; assert glob.glob({folder!r} + '/*')",
        "import os; os.open('kept', os.O_RDONLY, dir_fd=os.open({folder!r}, os.O_PATH))",
        "open('/etc/passwd').read()",
        "open('/proc/self/environ').read()",
        "open('/proc/1/cmdline').read()",
        "import os; open(f'/proc/{{os.getppid()}}/mem', 'rb').read(1)",
        "import sqlite3; sqlite3.connect('file:' + {kept!r} + '?mode=ro', uri=True).execute("
        "'select * from sqlite_master')",
        "import mmap; mmap.mmap(open({kept!r}).fileno(), 0)",
        C + "need(libc.open({kept!r}.encode(), 0))",
        "import shutil; shutil.copy({kept!r}, 'mine')",
        "import os; os.chroot('/')",
    ],
    "write": [
        "open({kept!r}, 'w')",
        "open({kept!r}, 'r+').write('x')",
        "import os; os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=os.open({folder!r}, 0))",
        "import sqlite3; sqlite3.connect({folder!r} + '/new').execute('create table t (a)')",
        "import os; os.mkfifo({folder!r} + '/new')",
        "import os; os.mknod({folder!r} + '/new')",
        "import os; os.link({kept!r}, 'mine')",
        "import os; os.truncate({kept!r}, 0)",
        "import os; os.setxattr({kept!r}, 'user.a', b'1')",
        C + "need(libc.unlink({kept!r}.encode()))",
        C + "need(libc.chmod({kept!r}.encode(), 0))",
        C + "need(libc.rename({kept!r}.encode(), b'mine'))",
        C + "need(libc.creat({folder!r}.encode() + b'/new', 511))",
        C + "need(libc.mkdir({folder!r}.encode() + b'/new', 511))",
        C + "need(libc.utimes({kept!r}.encode(), None))",
        C + "libc.symlink({folder!r}.encode(), b'way'); need(libc.creat(b'way/new', 511))",
    ],
    "network": [
        "import socket; socket.socket()",
        "import socket; socket.create_connection(('127.0.0.1', {port}))",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}')",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('::1', 1))",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        C + "need(libc.socket(2, 1, 0))",
    ],
    "processes": [
        "import os; os.fork()",
        "import os; os.execv('/bin/true', ['true'])",
        "import subprocess; subprocess.run('true')",
        "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
        C + "need(libc.fork())",
        C + "need(libc.syscall(435, bytes(88), 88))",
        C + "need(libc.kill(os.getppid(), 9))",
        C + "need(libc.kill(-1, 9))",
        C + "need(libc.execv(b'/bin/true', None))",
        C + "need(-abs(libc.system(b'true')))",
        C + "need(libc.ptrace(16, os.getppid(), 0, 0))",
        "import resource, os; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
        "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    ],
    "memory": [
        "bytearray(2 ** 31)",
        "x = []\nwhile True: x.append('x' * 2 ** 20)",
        "x = 'a'\nwhile True: x += x",
        "import mmap; mmap.mmap(-1, 2 ** 30)",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); bytearray(2 ** 30)",
        "open('a', 'wb').write(bytes(2 ** 22))",
        "for i in range(60): open(str(i), 'wb').write(bytes(2 ** 20 - 1))",
        "x = 10 ** 10 ** 9",
    ],
    "time": [
        "while True: pass",
        "import time; time.sleep(30)",
        "import threading; threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\n"
        "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import signal; signal.pause()",
        "import os; os.read(os.pipe()[0], 1)",
        "def f():\n    while True: yield 1",
    ],
    "escape": [
        C + "need(libc.unshare(0x10000000))",
        C + "need(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
        C + "need(libc.umount2(os.getcwd().encode(), 2))",
        C + "need(libc.setns(os.open('.', 0), 0))",
        C + "need(libc.syscall(425, 8, bytes(120)))",
        C + "need(libc.syscall(304, 3, bytes(128), 0))",
        C + "need(libc.syscall(321, 0, bytes(128), 128))",
        C + "need(libc.syscall(250, 0, -3, 1))",
        C + "need(libc.setuid(12345))",
        C + "need(libc.syscall(323, 0))",
    ],
}
"""Each raises or is ended, and changes nothing outside."""

TESTS = "assert f(2) == 3\nassert list(f(4) for _ in range(2)) == [5, 5]"
VERDICTS = [
    "import os; os._exit(0)",
    "import sys\ndef f(x): sys.exit(0)",
    "import sys\nfor depth in range(9):\n    try: print(sys._getframe(depth).f_locals)\n"
    "    except ValueError: break\ndef f(x): return sys._getframe(1).f_locals",
    "import os\nfor end in range(64):\n    try: os.write(end, b'passed')\n"
    "    except OSError: pass\ndef f(x): return 0",
    "import os, struct\ndef tell(x):\n    body = b'{\"value\": 3}'\n    for end in range(64):\n"
    "        try: os.write(end, struct.pack('!I', len(body)) + body)\n"
    "        except OSError: pass\n    return 0\nf = tell",
    "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\n"
    "def f(x): return 0",
    "import gc\nfor each in gc.get_objects():\n    if type(each) is dict and 'passed' in each: "
    "each['passed'] = True\ndef f(x): return 0",
    "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0",
    "import sys\nsys.settrace(lambda *a: None)\nsys.excepthook = lambda *a: None\n"
    "def f(x): raise SystemExit(0)",
    "import ctypes\ndef f(x): ctypes.string_at(0)",
    "import json\njson.dumps = lambda *a, **k: '{\"value\": true}'\ndef f(x): return 0",
    "def f(x): raise BaseException",
]
"""Answers that are wrong and say otherwise: none passes `TESTS`."""


@pytest.fixture(scope="module")
def code() -> Iterator[CodeRunner]:
    with CodeRunner() as running:
        yield running


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[dict[str, object]]:
    kept = tmp_path / "kept"
    kept.write_text("content")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"kept": str(kept), "folder": str(tmp_path), "port": server.getsockname()[1]}
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert sorted(os.listdir(tmp_path)) == ["kept"]
    assert kept.read_text() == "content"
    assert kept.stat().st_mode & 0o600 == 0o600


def test_every_wall_stands_here(code: CodeRunner) -> None:
    assert code.passes("x = 1").passed
    assert code.missing == ()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(code: CodeRunner, outside: dict[str, object], kind: str) -> None:
    for program in REFUSED[kind]:
        tests = "list(f())" if "def f():" in program else ""
        start = time.monotonic()
        outcome = code.passes(program.format(**outside) if "{" in program else program, tests, 0.7)
        assert not outcome.passed, program
        assert time.monotonic() - start < 5, program
        assert code.passes(f"x = 1 # after {program!r}").passed
        ended = {"memory": {"memory", "OSError", "ValueError", "timeout"}, "time": {"timeout"}}
        if kind in ended:
            assert outcome.reason in ended[kind], (program, outcome)


@pytest.mark.parametrize("number", range(len(VERDICTS)))
def test_no_answer_writes_its_verdict(code: CodeRunner, number: int) -> None:
    assert code.passes("def f(x): return x + 1", TESTS).passed
    assert not code.passes(VERDICTS[number], TESTS).passed
    assert code.passes("def f(x): return x + 1", f"{TESTS} # {number}").passed


def test_an_object_that_equals_everything_is_judged_as_beside_its_tests(code: CodeRunner) -> None:
    always = "class A:\n    def __eq__(self, other): return True\n"
    assert code.passes(f"{always}def f(x): return A()", "assert f(1) == 2").passed
    assert not code.passes(f"{always}def f(x): return A()", "assert f(1) > 2").passed


@pytest.mark.parametrize(
    "leaving",
    [
        "open('left', 'w').write('x')",
        "import os; os.makedirs('a/b/c'); open('a/b/c/d', 'w'); os.chmod('a/b', 0)",
        "import os; os.mkfifo('left')",
        C + "need(libc.symlink(b'/', b'left'))",
        "import tempfile; tempfile.mkdtemp()",
        C + "libc.setsid(); open('left', 'w')",
        "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
        "import os; open('left', 'w'); os.chmod('left', 0); os._exit(0)",
    ],
)
def test_nothing_is_left_over(code: CodeRunner, leaving: str) -> None:
    code.passes(leaving)
    assert code.passes(f"import os; assert os.listdir() == [] # after {leaving!r}").passed


def test_no_shared_memory_is_left_over(code: CodeRunner) -> None:
    before = Path("/proc/sysvipc/shm").read_text().count("\n")
    assert not code.passes(C + "need(libc.shmget(0, 4096, 0o1600))").passed
    assert Path("/proc/sysvipc/shm").read_text().count("\n") == before
    assert not code.passes("import _posixshmem; _posixshmem.shm_open('/a', 66, mode=384)").passed


def test_a_dead_worker_takes_its_processes_with_it(code: CodeRunner) -> None:
    with CodeRunner() as running:
        assert running.passes("x = 1").passed
        group = running._worker.pid if running._worker else 0
    time.sleep(0.2)
    sessions = [path.read_text().rpartition(")")[2].split() for path in _processes()]
    assert not [state for state, _, _, session, *_ in sessions if session == str(group)]


def test_the_counts() -> None:
    assert {kind: len(programs) for kind, programs in REFUSED.items()} == {
        "read": 14, "write": 16, "network": 7, "processes": 13, "memory": 8, "time": 7,
        "escape": 10,
    }  # fmt: skip
    assert len(VERDICTS) == 12
    assert MEMORY == 512 << 20


RIGHT = {
    "a counter": ("from collections import Counter\ndef f(x): return Counter(x)",
                  "assert f('aab') == {'a': 2, 'b': 1}\nassert {'a': 1} == f('a')\n"
                  "assert isinstance(f(''), dict) and [f('a')] == [{'a': 1}]"),
    "a generator": ("def f():\n    yield 1\n    yield 2", "assert list(f()) == [1, 2]"),
    "what it is given": ("def f(x, d): x.sort(); d['n'] = [x]; return x",
                         "x, d = [3, 1], {}\ny = f(x, d)\nassert y is x and x == [1, 3]\n"
                         "assert d == {'n': [[1, 3]]} and d['n'][0] is x"),
    "an error of its own": ("class E(ValueError): pass\ndef f(): raise E('why', 1)",
                            "try: f()\nexcept E as error: assert error.args == ('why', 1)\n"
                            "else: assert False"),
    "a library's error": ("import json\ndef f(x): return json.loads(x)",
                          "import json\ntry: f('{')\nexcept json.JSONDecodeError: pass"),
    "a function": ("def f(g, x): return [g(y) for y in x]",
                   "assert f(lambda y: y * 2, [1]) == [2] and f(str, [1]) == ['1']"),
    "a function that calls back": ("def f(g, x): return g(x)\ndef h(x): return x + 1",
                                   "assert f(lambda y: h(y), 1) == 2"),
    "a class": ("class P:\n    def __init__(self, x): self.x = x\n"
                "    def __add__(self, o): return P(self.x + (o.x if type(o) is P else o))\n"
                "    def __radd__(self, o): return self + o",
                "p = P(1)\np.x += 1\nassert (p + P(2)).x == 4 and (5 + p).x == 7\n"
                "assert isinstance(p, P) and not isinstance(1, P)"),
    "a date": ("import datetime\ndef f(): return datetime.date(2020, 1, 2)",
               "import datetime\nassert f() == datetime.date(2020, 1, 2) == f()\n"
               "assert isinstance(f(), datetime.date)"),
    "a library's number": ("from fractions import Fraction\ndef f(x): return x + Fraction(1, 2)",
                           "from fractions import Fraction\nassert f(Fraction(1, 2)) == 1"),
    "an array": ("import numpy as np\ndef f(): return np.arange(3)",
                 "import numpy as np\nassert np.array_equal(f(), np.arange(3))\n"
                 "assert (f() + 1).sum() == 6 and abs(f().mean() - 1) < 1e-9"),
    "plain data": ("def f(x): return x",
                   "for x in (None, True, 1, 1 << 70, -(1 << 5000), 0.1, 1e400, 'a\\ud800', "
                   "b'a', 1j, (1, [2]), {1: {2}}, frozenset('a'), bytearray(b'a')):\n"
                   "    assert f(x) == x and type(f(x)) is type(x)\nassert f(x := [x]) is x"),
    "modules": ("import math\nfrom typing import List\ndef f(x: List[int]): return math.sqrt(x)",
                "assert math.isclose(f(4), 2)"),
    "threads": ("import threading\ndef f(x):\n    out = []\n    "
                "t = threading.Thread(target=out.append, args=(x,))\n    t.start(); t.join()\n"
                "    return out", "assert f(1) == [1]"),
    "a loop of events": ("import asyncio\nasync def g(): return 1\n"
                         "def f(): return asyncio.run(g())",
                         "assert f() == 1"),
}  # fmt: skip
"""Right answers with their tests: what goes between the two processes as if they were one."""


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_passes(code: CodeRunner, name: str) -> None:
    outcome = code.passes(*RIGHT[name])
    assert outcome.passed, outcome
    answer, tests = RIGHT[name]
    assert not code.passes(answer, f"{tests}\nassert False").passed


def _processes() -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        if path.exists():
            yield path
