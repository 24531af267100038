"""What a run takes on the disk and in memory is checked and named before it is begun."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from built_runs import built
from command_line import run_here
from conftest import LINE

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import AimError
from aim_exp.merge.stream import n_elements
from aim_exp.run import room
from aim_exp.run.room import check_room
from aim_exp.run.run import Run

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "texts.txt").write_text("One text.\n\nAnother one.\n")
    return tmp_path / "texts.txt"


def run_of(family: Path, cache: Path, *more: str) -> Run:
    return built(
        cache,
        "population=custom",
        f"population.base={family / 'base'}",
        f"population.experts={{a: {family / 'a'}, b: {family / 'b'}}}",
        *more,
    )


def leave(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """So many bytes on every disk."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2**40, 2**40 - free, free))


def check(run: Run, directory: Path) -> None:
    check_room(run, run.plan.stages, directory, "cpu")


CASES = [
    (("omega=0.4", "benchmarks=none"), 0, "cache_dir={cache}: 16.0 MiB are needed for results"),
    (
        ("omega=null", "benchmarks=none", "method=fisher"),
        3 * 4,
        "cache_dir={cache}: {size} are needed for results, the gradients of a, the gradients of b",
    ),
    (
        ("omega=null", "benchmarks=none", "method=iso_c"),
        4,
        "cache_dir={cache}: {size} are needed for results, the method's groundwork",
    ),
    (
        ("omega=0.4", "save_model=true", "benchmarks=none"),
        2,
        "cache_dir={cache}: {size} are needed for results, the merged model",
    ),
    (
        ("omega=0.4", "evaluator=hf_process", "evaluator.model_args={load_in_8bit: true}"),
        2,  # one after the other, where a process takes no other weights
        "cache_dir={cache}: {size} are needed for results, the checkpoint of base for "
        "evaluator=hf_process",
    ),
]


@pytest.mark.parametrize(("line", "bytes_each", "words"), CASES, ids=lambda each: str(each)[:40])
def test_a_disk_without_room_is_named_before_work_begins(
    line: tuple[str, ...], bytes_each: int, words: str, family: Path, tmp_path: Path, texts: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cache = tmp_path / "cache"
    run = run_of(
        family,
        cache,
        "calibration=text",
        f"calibration.path={texts}",
        "calibration.block_size=64",
        *line,
    )
    needed = room.LEAST + bytes_each * n_elements(Checkpoint(family / "base", "base"))
    leave(monkeypatch, needed)
    check(run, tmp_path / "run")
    leave(monkeypatch, needed - 1)
    with pytest.raises(AimError) as raised:
        check(run, tmp_path / "run")
    told = words.format(cache=cache, size=f"{needed / 2**20:.1f} MiB")
    assert str(raised.value).startswith(told), str(raised.value)
    assert str(raised.value).endswith("name a folder of another one (what is done is kept)")


def test_a_model_larger_than_the_memory_is_named(
    family: Path, tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    line = (
        f"calibration.path={texts}",
        "calibration=text",
        "calibration.block_size=64",
        "omega=0.4",
        "benchmarks=none",
    )
    run = run_of(family, tmp_path / "cache", *line)
    size = 2 * n_elements(Checkpoint(family / "base", "base"))
    monkeypatch.setattr(room, "memory", lambda device: (size - 1, size - 1))
    with pytest.raises(AimError) as raised:
        check(run, tmp_path)
    told = f"dtype=bfloat16: base takes {size / 1024:.1f} KiB of memory, and device=cpu has"
    assert str(raised.value).startswith(told)
    assert str(raised.value).endswith("calibration.offload=layers takes a layer of it at a time")
    check(run_of(family, tmp_path / "cache", *line, "calibration.offload=layers"), tmp_path)
    assert not capsys.readouterr().out
    monkeypatch.setattr(room, "memory", lambda device: (2**40, size - 1))
    check(run, tmp_path)
    assert capsys.readouterr().out.startswith(f"warning: {told.partition(', and ')[0]}, and of")


def test_memory_of_this_machine() -> None:
    total, available = room.memory()
    assert 2**28 < available <= total <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_run_without_room_ends_at_once_and_one_that_is_done_needs_none(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, 2**20)
    more = (*LINE, "cache_dir=cache", "hydra.run.dir=again")
    refused = run_here(*more, "seed=1", "method=dare_ties", cwd=there)
    assert refused.returncode == 1
    needed = f"error: cache_dir={there / 'cache'}: 16.0 MiB are needed for results, and 1.0 MiB are"
    assert refused.stderr.startswith(needed)
    assert run_here(*more, cwd=there).returncode == 0
