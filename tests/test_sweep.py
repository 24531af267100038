"""A sweep does each piece of work once: counted in the process that runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

COUNTING = """
import json, sys
from collections import Counter
from functools import wraps
from aim_exp import app, pipeline
from aim_exp.checkpoint.live import LiveModel

counts = Counter()

def count(owner, name, what):
    function = getattr(owner, name)

    @wraps(function)
    def counted(*args, **settings):
        counts[what] += 1
        return function(*args, **settings)

    setattr(owner, name, counted)

count(pipeline, "measure", "calibrations")
count(pipeline, "stream_merge", "merges")
count(LiveModel, "__init__", "models")
try:
    app.main()
finally:
    print(json.dumps(counts))
"""
WEIGHTS = {".safetensors", ".bin", ".pt"}
Sweep = Callable[..., str]


@pytest.fixture
def sweep(tmp_path: Path, tiny_population: Path) -> Sweep:
    """Two methods by three omegas, with a cache that holds the population only; its output."""
    cache = tmp_path / "cache" / "population"
    shutil.copytree(tiny_population, cache / tiny_population.name)

    def run(*more: str) -> str:
        command = [sys.executable, "-c", COUNTING, "-m", "method=ties,task_arithmetic"]
        command += ["omega=null,0.2,0.4", "benchmarks.limit=4", "tracker=none", "cache_dir=cache"]
        done = subprocess.run(
            [*command, "hydra.sweep.dir=sweep", *more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "COLUMNS": "120", "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def counts(output: str) -> dict[str, int]:
    return json.loads(output.splitlines()[-1])


def test_one_calibration_one_model_no_weights(sweep: Sweep, tmp_path: Path) -> None:
    assert counts(sweep()) == {"calibrations": 1, "merges": 6, "models": 1}
    made = {path for path in tmp_path.rglob("*") if path.suffix in WEIGHTS}
    (saliency,) = made - set((tmp_path / "cache" / "population").rglob("*"))
    assert saliency.parts[-3] == "saliency"
    assert len(list((tmp_path / "sweep").glob("*/result.json"))) == 6
    assert counts(sweep("hydra.sweep.dir=again")) == {}, "all of it comes from the store"


def test_the_plan_says_what_is_shared(sweep: Sweep) -> None:
    def table(output: str) -> dict[str, list[int]]:
        """needed, distinct, cached, to do"""
        rows = re.findall(r"^(\S.*?) +(\d+) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE)
        return {what: [int(number) for number in numbers] for what, *numbers in rows}

    planned = sweep("plan=true")
    assert "6 jobs together" in planned
    assert counts(planned) == {}
    assert table(planned) == {
        "population trained": [6, 1, 1, 0],
        "base's activations measured": [4, 1, 0, 1],
        "base, experts, references scored": [24, 4, 0, 4],
        "merged and scored": [6, 6, 0, 6],
    }
    assert table(sweep("plan=true", "omega=0.4,1,null"))["merged and scored"] == [6, 4, 0, 4]
    unscored = table(sweep("plan=true", "benchmarks=none"))
    assert unscored["merged, not scored"] == [6, 6, 0, 6]
