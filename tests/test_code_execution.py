"""Untrusted programs: what fails, that nothing of them is left, and that the next one works."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aim_exp.evaluate.code.execution import CodeRunner, Outcome, runner
from aim_exp.evaluate.code.metric import CodeEval, install_code_eval

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="macOS has no such limit")
FINE = "def f(x):\n    return x + 1\nassert f(1) == 2"


@pytest.fixture(scope="module")
def code() -> Iterator[CodeRunner]:
    with CodeRunner() as running:
        assert running.passes(FINE).passed
        yield running


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("x = '\\ud800'.encode()", "UnicodeEncodeError"),
        ("(" * 10_000 + ")" * 10_000, "SyntaxError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import os; os._exit(0)", "exited early"),
        ("import sys; sys.exit(0)\nassert False", "exited early"),
        (
            "import sys\ndef f(): sys.exit(0)\ndef check(g): assert g() == 1\ncheck(f)",
            "exited early",
        ),
        ("try: assert False\nexcept BaseException: raise SystemExit", "exited early"),
        ("import sys; sys.exit(1)", "exited early"),
        ("raise SystemExit", "exited early"),
        ("quit()\nassert False", "exited early"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os; os.closerange(0, 100)", "exited early"),
        ("input()", "EOFError"),
        ("open('much', 'w').write('x' * 10**7)", "OSError"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.system('true')", "PermissionError"),
        ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
        ("import os; os.rmdir(os.getcwd())", "PermissionError"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "PermissionError"),
    ],
)
def test_a_bad_program_fails_and_the_next_works(
    code: CodeRunner, program: str, reason: str
) -> None:
    assert code.passes(program) == Outcome(passed=False, reason=reason)
    assert code.passes(f"{FINE} # after {reason}").passed


RIGHT = {
    "a temporary file": "import os, tempfile\n"
    "with tempfile.NamedTemporaryFile('w', delete=False) as f: f.write('x')\n"
    "assert open(f.name).read() == 'x'\nos.remove(f.name)",
    "a temporary file without a name": "import tempfile\n"
    "with tempfile.TemporaryFile() as f: f.write(b'x'); f.seek(0); assert f.read() == b'x'",
    "a temporary folder": "import os, tempfile\nwith tempfile.TemporaryDirectory() as d:\n"
    "    os.makedirs(os.path.join(d, 'b', 'c'))\n"
    "    open(os.path.join(d, 'a'), 'w').write('x')\nassert not os.path.exists(d)",
    "a folder of its own": "import os, shutil\nos.mkdir('out')\nopen('out/a', 'w').write('x')\n"
    "os.rename('out/a', 'out/b')\nos.utime('out/b')\nshutil.move('out/b', 'c')\n"
    "shutil.rmtree('out')\nassert os.listdir() == ['c']",
    "nowhere": "import os\nwith open(os.devnull, 'w') as f: print('a', file=f)",
    "sys.exit": "import sys\nassert True\nsys.exit(0)",
    "exit": "exit()",
    "its own types": "from __future__ import annotations\nimport pickle, typing\nclass A: x = 1\n"
    "class B: a: A\nassert typing.get_type_hints(B) == {'a': A}\n"
    "assert pickle.loads(pickle.dumps(A())).x == 1",
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes_and_leaves_nothing(code: CodeRunner, name: str) -> None:
    assert code.passes(RIGHT[name]) == Outcome(passed=True, reason="passed")
    assert code.passes(f"import os; assert os.listdir() == [] # after {name}").passed


@LINUX
def test_a_greedy_program_fails(code: CodeRunner) -> None:
    for program in ("x = [0] * 10**9", "x = []\nwhile True: x.append(bytearray(10**6))"):
        assert code.passes(program) == Outcome(passed=False, reason="memory")


def test_endless_programs_end(code: CodeRunner) -> None:
    for program in ("while True: pass", "import time; time.sleep(60)", "print(*iter(int, 1))"):
        start = time.monotonic()
        assert code.passes(program, timeout=0.3) in (
            Outcome(passed=False, reason="timeout"),
            Outcome(passed=False, reason="memory"),
        )
        assert time.monotonic() - start < 3


def test_output_and_own_files_do_no_harm(code: CodeRunner) -> None:
    assert code.passes("import sys; print('x' * 10**5); print('x' * 10**5, file=sys.stderr)").passed
    assert code.passes("open('mine', 'w').write('x'); assert open('mine').read() == 'x'").passed
    assert code.passes("import os; assert os.listdir() == []").passed


def test_nothing_outside_can_be_changed(code: CodeRunner, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("content")
    for action in (
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.rename({str(kept)!r}, 'mine')",
        f"import shutil; shutil.rmtree({str(tmp_path)!r})",
        f"open({str(kept)!r}, 'w')",
        f"open({str(kept)!r}, 'a').write('x')",
        f"import os; os.open({str(kept)!r}, os.O_WRONLY | os.O_TRUNC)",
        f"import os; os.symlink({str(kept)!r}, 'link')",
        f"import pathlib; pathlib.Path({str(kept)!r}).unlink()",
        f"import os; os.remove('kept', dir_fd=os.open({str(tmp_path)!r}, os.O_RDONLY))",
        f"import os; os.chmod({str(kept)!r}, 0)",
        f"import os; open('x', 'w'); os.rename('x', {str(kept)!r})",
        f"import os; os.mkdir({str(tmp_path / 'new')!r})",
    ):
        assert code.passes(action) == Outcome(passed=False, reason="PermissionError"), action
    assert kept.read_text() == "content"


def test_the_environment_and_this_process_are_out_of_sight(
    code: CodeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIM_EXP_SECRET", "1")
    with CodeRunner() as fresh:
        assert fresh.passes("import os; assert 'AIM_EXP_SECRET' not in os.environ").passed
    assert code.passes("import sys; assert 'torch' not in sys.modules").passed
    assert code.passes("assert set(globals()) <= {'__name__', '__builtins__'}").passed


@LINUX
def test_grandchildren_that_left_the_session_are_ended(code: CodeRunner) -> None:
    mark = f"orphan-{os.getpid()}"
    sleeper = (
        "import ctypes, time\n"
        "libc = ctypes.CDLL(None)\n"
        "if libc.fork() == 0:\n"
        "    libc.setsid()\n"
        f"    libc.prctl(15, {mark.encode()!r}, 0, 0, 0)\n"
        "    time.sleep(60)\n"
    )
    code.passes(sleeper)
    assert mark not in [path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm")]


def test_a_killed_worker_is_replaced(code: CodeRunner) -> None:
    assert code._worker is not None
    code._worker.kill()
    assert code.passes(f"{FINE} # with a new worker").passed


def test_closing_leaves_no_folder_and_no_process() -> None:
    with CodeRunner() as running:
        running.passes(FINE)
        assert running._folder is not None
        assert running._worker is not None
        folder, worker = Path(running._folder.name), running._worker
        assert folder.is_dir()
    assert not folder.exists()
    assert worker.poll() is not None


def test_sets_iterate_alike_in_every_run(code: CodeRunner) -> None:
    assert code.passes("import sys; assert sys.flags.hash_randomization == 0").passed


def test_code_eval_stands_in_for_the_hubs_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    install_code_eval()
    from lm_eval.tasks.humaneval import utils as humaneval
    from lm_eval.tasks.mbpp import utils as mbpp

    good, bad = "def add(a, b): return a + b", "def add(a, b): return a * b"
    tests = "assert add(2, 3) == 5"
    assert humaneval.pass_at_k([tests], [[good]], k=[1]) == {"pass@1": 1.0}
    assert humaneval.pass_at_k([tests, tests], [[good], [bad]], k=1) == {"pass@1": 0.5}
    assert humaneval.pass_at_k([tests], [[good, bad, bad]], k=[1, 2, 10]) == {
        "pass@1": pytest.approx(1 / 3),
        "pass@2": pytest.approx(2 / 3),
    }
    assert mbpp.pass_at_1(tests, [good]) == 1.0
    assert mbpp.pass_at_1(tests, [bad]) == 0.0


def test_code_eval_gives_each_candidates_verdict() -> None:
    shares, verdicts = CodeEval().compute(
        references=["assert f() == 1"], predictions=[["def f(): return 1", "def f(): return 2"]]
    )
    assert shares == {"pass@1": 0.5}
    assert [(number, verdict["passed"]) for number, verdict in verdicts[0]] == [
        (0, True),
        (1, False),
    ]
    assert verdicts[0][1][1]["result"] == "AssertionError"


def test_the_shared_runner_is_one() -> None:
    assert runner() is runner()
