"""A sweep is checked first, does each piece of work once, and can be interrupted."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from command_line import run_here
from conftest import ROOT, Cli
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import open_dict
from records import record, write_all

from aim_exp.aim import measure
from aim_exp.checkpoint.live import LiveModel, close_model
from aim_exp.cli.commands import after_sweep
from aim_exp.config.schema import CONFIG_FOLDER
from aim_exp.config.sweep import Composer, sweep_jobs, sweep_problems
from aim_exp.report.load import load
from aim_exp.run import pipeline

WEIGHTS = {".safetensors", ".bin", ".pt"}
Sweep = Callable[..., tuple[str, Counter[str]]]


@pytest.fixture
def sweep(tmp_path: Path, tiny_population: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Two methods by three omegas, with a cache that holds the population only.

    What it prints, and how often it did what is dear.
    """
    cache = tmp_path / "cache" / "population"
    shutil.copytree(tiny_population, cache / tiny_population.name)
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str, what: str) -> None:
        function = getattr(owner, name)

        @wraps(function)
        def counted(*args: Any, **settings: Any) -> Any:
            counts[what] += 1
            return function(*args, **settings)

        monkeypatch.setattr(owner, name, counted)

    count(measure, "measure", "calibrations")
    count(pipeline, "stream_merge", "merges")
    count(LiveModel, "__init__", "models")

    def run(*more: str) -> tuple[str, Counter[str]]:
        counts.clear()
        close_model()
        line = ["-m", "method=ties,task_arithmetic", "omega=null,0.2,0.4", "benchmarks.limit=4"]
        line += ["tracker=none", "cache_dir=cache", "hydra.sweep.dir=sweep", *more]
        done = run_here(*line, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout, Counter(counts)

    return run


def test_one_calibration_one_model_no_weights(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep()[1] == {"calibrations": 1, "merges": 6, "models": 1}
    made = {path for path in tmp_path.rglob("*") if path.suffix in WEIGHTS}
    own = made - set((tmp_path / "cache" / "population").rglob("*"))
    stages = {
        path.relative_to(tmp_path / "cache").parts[0] for path in own if "cache" in path.parts
    }
    assert stages == {"saliency"}, "no model"
    (shared,) = (path for path in own if "cache" not in path.parts)
    assert shared.parent == tmp_path / "sweep" / "shared" / "saliency"
    assert len(list((tmp_path / "sweep").glob("*/result.json"))) == 6
    assert sweep("hydra.sweep.dir=again")[1] == {}, "all of it comes from the store"


@pytest.mark.slow
def test_the_plan_says_what_is_shared(sweep: Sweep) -> None:
    def table(output: str) -> dict[str, list[int]]:
        """needed, distinct, cached, to do"""
        rows = re.findall(r"^(\S.*?) +(\d+) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE)
        return {what: [int(number) for number in numbers] for what, *numbers in rows}

    planned, counts = sweep("plan=true")
    assert "6 jobs together" in planned
    assert counts == {}
    assert table(planned) == {
        "population trained": [6, 1, 1, 0],
        "activations measured": [4, 1, 0, 1],
        "base, experts, references scored": [24, 4, 0, 4],
        "merged and scored": [6, 6, 0, 6],
    }
    assert table(sweep("plan=true", "omega=0.4,1,null")[0])["merged and scored"] == [6, 4, 0, 4]
    unscored = table(sweep("plan=true", "benchmarks=none")[0])
    assert unscored["merged, not scored"] == [6, 6, 0, 6]


def test_wrong_values_are_told_before_the_first_job(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "-m", "omega=1.7,0.2,2", "method=ties,linear", "aim.scaling=uniform,odd", "tracker=none",
        "benchmarks=none", "hydra.sweep.dir=s",
    )  # fmt: skip
    assert done.returncode == 1
    wrong = r"error: \d+ of 12: omega=1.7: must be in \[0, 1\]"
    lines = done.stderr.splitlines()
    assert lines[:4] == [
        "warning: omega=1.7: must be in [0, 1] "
        "(in 4 of 12 jobs, first omega=1.7 method=ties aim.scaling=uniform)",
        "warning: aim.scaling=odd: must be one of identity, inverted, lines, power, shuffled, svc, "
        "threshold, uniform, uniform_global, uniform_norm, uniform_out "
        "(in 6 of 12 jobs, first omega=1.7 method=ties aim.scaling=odd)",
        "warning: omega=2.0: must be in [0, 1] "
        "(in 4 of 12 jobs, first omega=2 method=ties aim.scaling=uniform)",
        "warning: those jobs fail in their turn; the others run",
    ]
    assert sum(bool(re.match(wrong, line)) for line in lines[4:]) == 4
    statuses = [
        json.loads(path.read_text())["status"] for path in (tmp_path / "s").rglob("result.json")
    ]
    assert sorted(statuses) == ["completed"] * 2 + ["failed"] * 10
    plan = cli("-m", "omega=1.7,0.2", "benchmarks=none", "plan=true")
    assert plan.stderr.splitlines() == ["error: omega=1.7: must be in [0, 1]"]


def test_wrong_values_of_a_study() -> None:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        swept = ["experiment=ablation_omega", "omega=null,0.1,2", "aim.scaling=odd"]
        config = loader.load_configuration("config", swept, run_mode=RunMode.MULTIRUN)
        everywhere, some = sweep_problems(config, sweep_jobs(config) or [])
    assert everywhere.startswith("aim.scaling=odd: ")
    assert everywhere.endswith("(in every job)")
    assert some == "omega=2.0: must be in [0, 1] (in 3 of 9 jobs, first method=ties omega=2)"


@pytest.mark.parametrize(
    ("asked", "plain"),
    [
        ("method=ties,linear aim.scaling=identity,uniform omega=0.2,0.4 calibration.n_samples=8,16",
         "method=ties,linear"),
        ("experiment=ablation_calibration seed=0,1",
         "experiment=ablation_calibration seed=0,1 calibration.n_samples=16 calibration.seed=42"),
        ("experiment=ablation_control omega=0.4 aim.scaling=inverted",
         "experiment=ablation_control aim.scaling=inverted"),
    ],
)  # fmt: skip
def test_the_plain_merges_that_a_sweep_lacks_are_named_once(
    asked: str, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", asked.split(), run_mode=RunMode.MULTIRUN)
        jobs = sweep_jobs(config)
    assert jobs
    monkeypatch.setattr("sys.argv", ["run.py", "-m", *asked.split(), "hydra.sweep.dir=s"])
    relaxed = replace(record("omega=0.4"), overrides=tuple(jobs[0]))
    first, both, cut = (tmp_path / name for name in ("first", "both", "cut"))
    command = after_sweep(first, load(write_all(first, relaxed)))
    assert command == f"python run.py -m {plain} omega=null"
    pair = write_all(both, relaxed, record("omega=null"))
    assert "aim_exp.report" in (after_sweep(both, load(pair)) or "")
    assert after_sweep(cut, load(write_all(cut, relaxed, asked_for=2))) is None, "interrupted"


JOBS = ("method=ties,dare_ties", "omega=null,0.4", "population.merge=[code],[code,math]",
        "+benchmarks.tasks.tiny_math.reference_point=0.1", "~benchmarks.tasks.tiny_mbpp",
        "method.weight={code: 0.7, math: 0.3}", "tracker=none")  # fmt: skip


def test_a_job_is_checked_as_hydra_composes_it() -> None:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", [*JOBS], run_mode=RunMode.MULTIRUN)
        jobs = sweep_jobs(config)
        assert jobs
        assert len(jobs) == 8
        composer = Composer(config)
        for job in jobs:
            expected = loader.load_sweep_config(config, [*job])
            checked, choices = composer.job(job)
            assert choices["method"] == expected.hydra.runtime.choices["method"]
            with open_dict(expected):
                del expected["hydra"]
            assert checked == expected
        assert sweep_problems(config, jobs) == []


def test_an_interrupted_sweep_keeps_what_is_done(tmp_path: Path, tiny_cache: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "-m", "method=ties,linear,task_arithmetic"]
    command += ["omega=null,0.2,0.4", "benchmarks.limit=8", "tracker=none", "hydra.sweep.dir=s"]
    with subprocess.Popen(
        [*command, f"cache_dir={tiny_cache}"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Where pytest runs in a shell's background, the signal is ignored from birth.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout
        assert any(line.startswith("2 of 9: ") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.splitlines() == [
        "error: interrupted; what is done is kept: the same command goes on from there"
    ]
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "s").glob("*/*.json"))]
    assert [(record["status"], record["error"]) for record in records] == [
        ("completed", None),
        ("failed", "interrupted"),
    ]
    assert "\n9 jobs, 1 scored, 1 interrupted, 7 not run" in output
    assert "interrupted" in (tmp_path / "s" / "report.md").read_text()
