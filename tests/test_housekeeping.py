"""`python -m aim_exp.store`: what a cache holds and what goes, to another cluster and back."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from command_line import run_here
from conftest import LINE
from run_records import numbers, result

from aim_exp.run.pipeline import Pipeline
from aim_exp.store.__main__ import main as store_command
from aim_exp.store.entries import Store
from aim_exp.store.leases import take, this_process
from aim_exp.store.process_notes import SILENCE
from aim_exp.store.stage_spec import StageSpec

Command = Callable[..., list[str]]


@pytest.fixture
def store(capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m aim_exp.store ARGUMENTS`, which must end with `status`: its lines."""

    def run(*arguments: object, status: int = 0) -> list[str]:
        capsys.readouterr()
        assert store_command([str(each) for each in arguments]) == status
        told = capsys.readouterr()
        return [*told.out.splitlines(), *told.err.splitlines()]

    return run


def test_gc_keeps_what_runs_need_and_what_is_worked_at(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = there / "cache"
    at = f"--cache-dir={cache}"
    line = (*LINE, "cache_dir=cache", "benchmarks=none", "omega=0.3", "hydra.run.dir=other")
    assert run_here(*line, cwd=there).returncode == 0
    kept = {path for path in cache.glob("*/*") if path.is_dir()}
    store = Store(cache)
    for number in range(3):
        store.get_or_make(StageSpec("stage", 1, {"n": number}), lambda folder: None)
    in_work = StageSpec("stage", 1, {"n": 0})
    lease = take(cache / "leases" / f"stage-{in_work.key}")
    assert lease
    left = cache / "leases" / f"stage-{StageSpec('stage', 1, {'n': 1}).key}"
    left.mkdir()
    (left / "token").write_text(json.dumps({**ended_process(), "beat": 0}))

    runs = [str(there / "run"), str(there / "other")]
    capsys.readouterr()
    assert store_command(["gc", at, *runs]) == 0
    assert "in 3 entries that none of 2 runs rests on" in capsys.readouterr().out
    assert len(list((cache / "stage").iterdir())) == 3, "nothing is deleted unasked"
    assert store_command(["gc", at, "--yes", *runs]) == 0
    told = capsys.readouterr().out
    assert f"in use  stage/{in_work.key}" in told
    assert told.count("deleted") == 2
    lease.release()
    assert store_command(["gc", at, "--yes", *runs]) == 0
    assert {path for path in cache.glob("*/*") if path.is_dir()} - {cache / "stage"} == kept
    assert store_command(["gc", at, "--yes", str(there / "trained")]) == 2, "no run there"
    assert store_command(["verify", at]) == 0


def test_du_by_stage_and_by_runs(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, run = there / "cache", there / "run"
    assert store_command(["du", f"--cache-dir={cache}", str(run)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    counts = {row[0]: row[1] for row in rows if len(row) > 1}
    assert counts["scores"] == "30"
    assert counts["responses"] == "5"
    assert counts["saliency"] == counts["weights"] == counts["population"] == "1"
    assert counts["total"] == "38"
    (of_run,) = (row for row in rows if row[:1] == [str(run)])
    assert of_run[1] == "38"
    assert of_run[2:4] == of_run[4:6]


def ended_process() -> dict[str, Any]:
    """A process of this machine that ended."""
    ended = Popen(["true"])
    ended.wait()
    return {**asdict(this_process()), "pid": ended.pid}


def test_gc_leaves_what_a_process_uses(tmp_path: Path, store: Command) -> None:
    cache = Store(tmp_path / "cache")
    specs = [StageSpec("stage", 1, {"n": number}) for number in range(4)]
    for spec in specs:
        cache.get_or_make(spec, lambda folder: None)
    here = asdict(this_process())
    holders = {"own": here, "gone": ended_process(), "lost": {**here, "host": "gpu-07"}}
    notes = {name: cache.root / "processes" / name for name in holders}
    for (name, holder), spec in zip(holders.items(), specs, strict=False):
        notes[name].parent.mkdir(exist_ok=True)
        first = json.dumps({**holder, "temporary": str(tmp_path)})
        notes[name].write_text(f"{first}\nwrites {tmp_path}\nuses {spec.name}\n")
    long_ago = time.time() - SILENCE - 60
    os.utime(notes["lost"], (long_ago, long_ago))
    lines = store("gc", "--older", 0, "--yes", f"--cache-dir={cache.root}")
    assert sorted(line.split()[0] for line in lines) == ["deleted"] * 3 + ["in"]
    assert f"    in use  {specs[0].name}" in lines
    notes["own"].unlink()
    store("gc", "--older", 0, "--yes", f"--cache-dir={cache.root}")
    assert not list((cache.root / "stage").iterdir())


def test_gc_amid_a_run_costs_it_nothing(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its middle all goes that no process uses; nobody keeps the run."""
    calibrate = Pipeline.calibrate

    def disturbed(pipeline: Pipeline) -> None:
        assert store_command(["gc", "--older=0", "--yes", f"--cache-dir={there / 'cache'}"]) == 0
        calibrate(pipeline)

    monkeypatch.setattr(Pipeline, "calibrate", disturbed)
    line = (*LINE, "cache_dir=cache", "hydra.run.dir=again")
    done = run_here(*line, cwd=there)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("    in use  ") == 38
    assert "deleted" not in done.stdout
    assert numbers(there / "again") == numbers(there / "run")


def test_gc_of_what_is_old(there: Path, store: Command) -> None:
    cache, at = there / "cache", f"--cache-dir={there / 'cache'}"
    (saliency,) = (cache / "saliency").iterdir()
    long_ago = time.time() - 40 * 24 * 3600
    for path in (saliency, *saliency.iterdir()):
        os.utime(path, (long_ago, long_ago))
    assert store("gc", at, status=2) == [
        "error: gc: name the RUNS that you keep, or what is old by --older DAYS"
    ]
    named, total = store("gc", at, "--older", 30)
    assert named.endswith(f"  saliency/{saliency.name}")
    assert total.endswith("in 1 entries, not written for 30 days; --yes deletes them")
    assert len(store("gc", at, "--older", 30, there / "run")) == 1, "the run rests on it"
    assert store("gc", at, "--older", 30, "--yes") == [f"   deleted  saliency/{saliency.name}"]


def test_a_run_that_was_killed_keeps_what_it_has(there: Path, store: Command) -> None:
    """Its record says what it rests on before there is any."""
    line = (*LINE, "cache_dir=cache", "omega=0.3", "benchmarks=none", "hydra.run.dir=killed")
    assert run_here(*line, cwd=there).returncode == 0
    record = result(there / "killed")
    early = {**record, "status": "running", "models": record["models"], "timings": {}}
    (there / "killed" / "result.json").write_text(json.dumps(early))
    lines = store("gc", f"--cache-dir={there / 'cache'}", there / "run", there / "killed")
    assert "in 0 entries" in lines[-1]


def members(directory: Path) -> list[dict[str, Any]]:
    return numbers(directory)[:-1]


def test_what_members_answered_goes_to_another_cluster(there: Path, store: Command) -> None:
    sent = there / "sent"
    (line,) = store("export", there / "run", "--to", sent, f"--cache-dir={there / 'cache'}")
    assert line == f"{sent}: 28 entries new, 0 there already"  # 4 models, 6 benchmarks
    assert store("verify", f"--cache-dir={sent}")[-1] == "28 entries, 0 damages"
    (run,) = json.loads((sent / "export.json").read_text())["runs"]
    record = result(there / "run")
    assert run["command"] == record["command"]
    assert run["versions"] == record["versions"]
    assert run["models"] == {each["name"]: each["identity"] for each in record["models"]}
    assert len(run["entries"]) == 28

    there_too = there / "other" / "cache"
    shutil.copytree(there / "cache" / "population", there_too / "population")
    at = f"--cache-dir={there_too}"
    assert store("import", sent, at)[-1].endswith("28 entries new, 0 there already")
    assert store("import", sent, at)[-1].endswith("0 entries new, 28 there already")
    (note,) = (there_too / "imports").iterdir()
    assert json.loads(note.read_text())["runs"] == [run]
    line = (*LINE, "omega=0.3", "cache_dir=cache", "hydra.run.dir=run")
    done = run_here(*line, cwd=there / "other")
    assert done.returncode == 0, done.stderr
    assert members(there / "other" / "run") == members(there / "run")
    scored = {s["name"]: s for s in record["stages"]}
    for stage in result(there / "other" / "run")["stages"]:
        if stage["name"].startswith("score "):
            for key in ("seconds", "machine", "made_at"):
                assert stage[key] == scored[stage["name"]][key], "as it was made there"


def test_all_of_a_run_goes_to_another_cluster(there: Path, store: Command) -> None:
    sent = there / "sent"
    store("export", there / "run", "--all", "--to", sent, f"--cache-dir={there / 'cache'}")
    done = run_here(*LINE, f"cache_dir={sent}", "hydra.run.dir=again", cwd=there)
    assert done.returncode == 0, done.stderr
    assert numbers(there / "again") == numbers(there / "run")
    (note,) = store("import", sent, f"--cache-dir={there / 'new'}")
    assert note == f"{there / 'new'}: 38 entries new, 0 there already"
    copied = {path.relative_to(there / "new") for path in (there / "new").glob("*/*/*")}
    assert copied >= {p.relative_to(there / "cache") for p in (there / "cache").glob("scores/*/*")}


def test_what_is_damaged_or_forged_stays_out(there: Path, store: Command) -> None:
    cache, sent, at = there / "cache", there / "sent", f"--cache-dir={there / 'new'}"
    store("export", there / "run", "--to", sent, f"--cache-dir={cache}")
    scores = sorted((sent / "scores").iterdir())
    (scores[0] / "scores.json").write_text("{}")
    scores[1].rename(scores[1].with_name("0" * 64))  # the name is of other ingredients
    digests = json.loads((scores[1].with_name("0" * 64) / "digests.json").read_text())
    digests["entry"] = f"scores/{'0' * 64}"
    (scores[1].with_name("0" * 64) / "digests.json").write_text(json.dumps(digests))
    first, *_ = sorted((sent / "responses").glob("*/*.jsonl"))
    first.write_text(first.read_text().replace('"', "'", 1))
    lines = store("import", sent, at, status=1)
    assert [line.partition(": ")[0] for line in lines[:-1]] == [
        str(first),
        str(sent / "scores" / ("0" * 64) / "spec.json"),
        str(scores[0] / "scores.json"),
    ]
    assert lines[-1] == f"{there / 'new'}: 25 entries new, 0 there already"
    assert store("export", there / "run", "--to", cache, at, status=2) == [
        f"error: --to={cache}: is there already, and no export; name a new folder"
    ]
    assert "export.json: is missing" in store("import", cache, at, status=2)[0]


def test_answers_of_two_clusters_come_together(there: Path, store: Command) -> None:
    """Each has asked other items of the same models."""
    at, sent = f"--cache-dir={there / 'cache'}", there / "sent"
    store("export", there / "run", "--to", sent, at)
    (log,) = max((sent / "responses").iterdir()).glob("*.jsonl")
    whole = log.read_text().splitlines(keepends=True)
    here = there / "cache" / "responses" / log.parent.name
    (own,) = here.glob("*.jsonl")
    own.write_text("".join(own.read_text().splitlines(keepends=True)[:3]))
    log.write_text("".join(whole[1:]))
    assert store("import", sent, at)[-1].endswith("1 entries new, 27 there already")
    lines = [line for path in here.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(line.rstrip() for line in whole)
