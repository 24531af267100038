"""What a terminal shows while it works, and what a file gets of it; the help; tab completion."""

import os
import pty
import re
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Cli
from rich.console import Console

from aim_exp import console as terminal
from aim_exp import merge
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.merge.stream import n_elements, stream_checkpoint, stream_merge
from aim_exp.tensors.sink import Discard

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
STAGE = """
import time
from aim_exp.console import begin_job, progress
begin_job("2 of 6: ties omega=0.4")
with progress("Merging", 4_000_000_000) as advance:
    for _ in range(3):
        time.sleep(0.5)
        advance(1_000_000_000)
"""


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What goes to a console that is no terminal; every stage is worth a line."""
    file = StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=file, highlight=False, width=40))
    monkeypatch.setattr(terminal, "WORTH_A_LINE", 0.0)
    monkeypatch.setattr(terminal, "_job", "")
    return file


def on_a_terminal(code: str) -> str:
    """What Python writes to a pseudo-terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    received = b""
    try:
        while data := os.read(ours, 65536):
            received += data
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return received.decode()


def test_a_terminal_shows_job_stage_counts_and_time_left() -> None:
    screen = on_a_terminal(STAGE)
    frames = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen).replace("\r", "\n").splitlines()
    bars = [line for line in frames if "/4.0 B" in line]
    assert any(re.fullmatch(r"Merging +━+[╸╺]━+ 2\.0/4\.0 B [12] s left *", bar) for bar in bars), (
        bars
    )
    assert max(map(len, frames)) <= 80
    named = [line for line in frames if line.startswith("2 of 6: ties omega=0.4 ─")]
    assert len(named) >= 3, "the job stands above the bar in every frame"
    assert re.fullmatch(r"Merging: 1\.[5-9] s", [line for line in frames if line.strip()][-1])
    assert "\x1b[?25h" in screen, "the cursor comes back"


def test_elsewhere_a_plain_line_for_each_stage(printed: StringIO) -> None:
    terminal.begin_job("[1] ties 'population.merge=[code,math]' and what else there is to say")
    with terminal.progress("Scoring [b]", 10) as advance:
        advance(10)
    with terminal.progress("Starting vllm", None):
        pass
    first, *others = printed.getvalue().splitlines()
    assert first == "[1] ties 'population.merge=[code,math]' and what else there is to say"
    assert others == ["Scoring [b]: 0.0 s", "Starting vllm: 0.0 s"]
    assert not CONTROL.search(printed.getvalue())


def test_elsewhere_a_long_stage_says_how_far_it_is(
    printed: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "REPORT_SECONDS", 0.1)
    with terminal.progress("Scoring merged", 200) as advance:
        advance(40)
        time.sleep(0.15)
        advance(60)
        advance(1)  # a report was just made
    assert printed.getvalue().splitlines()[0] == "Scoring merged: 50 %, 1 s left"
    assert printed.getvalue().count("left") == 1
    assert not CONTROL.search(printed.getvalue())


def test_a_short_stage_leaves_no_line(printed: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "WORTH_A_LINE", 1.0)
    with terminal.progress("Merging", 1) as advance:
        advance(1)
    assert printed.getvalue() == ""


def test_a_failed_stage_leaves_no_line(printed: StringIO) -> None:
    with pytest.raises(ValueError, match="broken"), terminal.progress("Merging", 1):
        raise ValueError("broken")
    assert printed.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (59.6, "1 min 0 s"), (725, "12 min 5 s"), (7500, "2 h 5 min")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert terminal.duration(seconds) == words


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stream_goes_through_all_elements(family: Path, threads: int) -> None:
    base, *experts = (Checkpoint(family / name, name) for name in ("base", "a", "b"))
    elements = sum(base.tensor(name).numel() for name in base.tensors)
    method = merge.Ties(weight=1.0, scale=1.0, density=0.2, normalize=True, trim_scope="tensor")
    steps: list[int] = []
    stream_merge(base, experts, method, Discard(), seed=0, threads=threads, advance=steps.append)
    assert len(steps) == len(base.tensors)
    assert sum(steps) == n_elements(base) == elements
    steps.clear()
    stream_checkpoint(base, Discard(), steps.append)
    assert sum(steps) == elements
    assert torch.get_num_threads() == 1


def test_a_sweep_counts_its_jobs(cli: Cli, family: Path) -> None:
    """The experiment's file sweeps the scale, and omega and scaling too if nothing is said."""
    done = cli(
        "-m", "experiment=ablation_control", "omega=null", "aim.scaling=identity",
        "population=custom", f"population.base={family / 'base'}",
        f"population.experts={{a: {family / 'a'}, b: {family / 'b'}}}",
        "population.merge=[a,b],[a]", "benchmarks=none", "tracker=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = re.findall(r"^(\d+) of (\d+): task_arithmetic omega=null", done.stdout, re.MULTILINE)
    assert numbers == [(str(job), "8") for job in range(1, 9)]
    assert not CONTROL.search(done.stdout)


def test_help_fits_a_terminal() -> None:
    for command in (["run.py"], ["-m", "aim_exp.report"]):
        done = subprocess.run(
            [sys.executable, *command, "--help"],
            cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "COLUMNS": "80"},
        )  # fmt: skip
        lines = done.stdout.splitlines()
        assert len(lines) > 20
        assert [line for line in lines if len(line) > 79] == []


def test_tab_completes_in_bash() -> None:
    """As the README says, with Hydra's own script, which looks for `python` and a file."""
    script = """
        PATH="$(dirname "$1"):$PATH"
        eval "$(python run.py -sc install=bash)"
        complete -p python >/dev/null
        complete() { COMP_LINE="$*"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
                     hydra_bash_completion; echo "${COMPREPLY[*]}"; }
        complete python run.py method=dare_t
        complete python run.py calibration=t
        complete python run.py -m method=ties method.d
        complete python run.py om
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "method=dare_ties", "calibration=text calibration=tiny", "method.density=", "omega=",
    ]  # fmt: skip
