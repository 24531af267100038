"""Every experiment: its command on the file, its jobs counted, and a cut-down run on `tiny`."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from methods_table import PAGE, methods, rows
from omegaconf import OmegaConf
from run_records import model_of

from aim_exp.app import CONFIG_FOLDER
from aim_exp.config import axes

TINY = ("population=tiny", "calibration=tiny", "benchmarks=tiny", "tracker=none")
JOBS = {
    "paper_table": 5 * 4 * 2,
    "published_checkpoints": 40,
    "published_control": 20 * 2 * 2,
    "ablation_omega": 3 * 11,
    "ablation_calibration": 3 * 3,
    "ablation_control": 4 * 5 * 2,
    "ablation_coordinates": 5 * 5 * 2 * 2,
    "noise_floor": 2 * 5,
    "baselines": 2 * 3 * (len(methods()) - 2 + 2 * 3),
    "tuned": 3 * (12 * (len(methods()) - 5) + 12 * 3 + 3 + 3),
}
CUT_DOWN: dict[str, tuple[tuple[str, ...], int]] = {
    "paper_table": (("population.merge=[code,math]", "omega=0.4"), 5),
    "ablation_omega": (("method=ties", "omega=null,0.2"), 2),
    "ablation_calibration": (("calibration.n_samples=16,64", "calibration.seed=42"), 2),
    "ablation_control": (("method.scale=0.8", "omega=0.4"), 5),
    "noise_floor": (("omega=0.4", "repeat=0,1"), 2),
    "baselines": (("method=regmean", "omega=0.4", "seed=0", "calibration.n_samples=16"), 1),
    "tuned": (("method=grid({ties: {density: [0.1, 0.3]}})", "seed=0"), 2),
}


QUICK = ("baselines", "tuned")


def records(sweep: Path) -> list[dict[str, Any]]:
    results = [json.loads(path.read_text()) for path in sweep.glob("*/result.json")]
    assert all(record["status"] == "completed" for record in results)
    return results


def test_these_are_all() -> None:
    files = {path.stem: path for path in (CONFIG_FOLDER / "experiment").glob("*.yaml")}
    assert set(files) == set(JOBS)
    for name, path in files.items():
        assert path.read_text().splitlines()[1] == f"# python run.py -m experiment={name}"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in CUT_DOWN]
)
def test_it_runs_cut_down(name: str, cli: Cli, tmp_path: Path) -> None:
    overrides, jobs = CUT_DOWN[name]
    limits = ("benchmarks.limit=2", "hydra.sweep.dir=s")
    done = cli("-m", f"experiment={name}", *TINY, *limits, *overrides)
    assert done.returncode == 0, done.stderr
    results = records(tmp_path / "s")
    assert len(results) == jobs
    with (tmp_path / "s" / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == jobs
    if name == "paper_table":
        densities = {
            record["method"]: record["config"]["method"].get("density") for record in results
        }
        assert densities == {
            "authors/dare_linear": 1.0,
            "authors/dare_ties": 1.0,
            "authors/ties": 1.0,
            "task_arithmetic": None,
            "authors/widen": None,
        }
    if name == "noise_floor":  # on a CPU the same weights answer the same
        assert results[0]["scores"] == results[1]["scores"]
        assert model_of(results[0])["keys"] != model_of(results[1])["keys"]


def test_published_checkpoints_run_cut_down(
    cli: Cli, tmp_path: Path, tiny_population: Path
) -> None:
    paths = ",".join(str(tiny_population / name) for name in ("code", "math"))
    done = cli(
        "-m", "experiment=published_checkpoints", *TINY, "benchmarks.limit=2",
        f"method.path={paths}", "hydra.sweep.dir=s",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = records(tmp_path / "s")
    assert [record["scores"] for record in results] == [
        record["population_scores"][name]
        for record, name in zip(results, ("code", "math"), strict=True)
    ]


def test_published_control_runs_cut_down(cli: Cli, tmp_path: Path, tiny_population: Path) -> None:
    """Of one checkpoint the plain merge, AIM and the control; its references are on the hub."""
    done = cli(
        "-m", "experiment=published_control", *TINY, "benchmarks.limit=2",
        "population.references=null", f"method.path={tiny_population / 'math'}",
        "hydra.sweep.dir=s",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = {(r["omega"], r["config"]["aim"]["scaling"]): r for r in records(tmp_path / "s")}
    assert len(results) == 4
    aim, control = results[0.4, "identity"], results[0.4, "uniform_out"]
    outputs = [r["dose"]["all"]["outputs"] for r in (aim, control)]
    assert outputs[0] == pytest.approx(outputs[1], rel=1e-4)
    assert outputs[0] < 1
    plain = {
        model["keys"]["weights"]
        for (omega, _), r in results.items()
        if omega is None
        for model in r["models"]
        if model["role"] == "merged"
    }
    assert len(plain) == 1


@pytest.mark.parametrize("name", JOBS)
def test_its_jobs_compose(name: str) -> None:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", [f"experiment={name}"], return_hydra_config=True)
        swept = OverridesParser.create().parse_overrides(
            [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
        )
        axes.teach(BasicSweeper)
        (jobs,) = BasicSweeper.split_arguments(swept, None)
        assert len(jobs) == JOBS[name]
        for job in (jobs[0], jobs[-1]):
            assert not OmegaConf.missing_keys(compose("config", [f"experiment={name}", *job]))


def test_baselines_are_all_methods() -> None:
    params = OmegaConf.load(CONFIG_FOLDER / "experiment" / "baselines.yaml").hydra.sweeper.params
    assert set(params.method.replace(" ", "").split(",")) == set(methods())


def test_tuned_are_all_methods_with_equal_budgets() -> None:
    """Twelve settings each, where a method has any, and each of them another merge."""
    file = OmegaConf.load(CONFIG_FOLDER / "experiment" / "tuned.yaml")
    grid = file.hydra.sweeper.params.method
    axes.teach(BasicSweeper)
    parsed = OverridesParser.create().parse_overrides([f"method={grid}"])
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    assert len({tuple(job) for job in jobs}) == len(jobs)
    counts = Counter(job[0].removeprefix("method=") for job in jobs)
    assert set(counts) == set(methods())
    assert {name for name, n in counts.items() if n == 1} == {
        "linear", "model_stock", "nuslerp", "karcher",
    }  # fmt: skip
    assert set(counts.values()) == {1, file.select.budget}


def test_the_page_has_the_methods_as_they_are() -> None:
    table, _, _ = PAGE.read_text().partition("Streams and passes")
    for row in rows().values():
        assert f"| {' | '.join(row)} |" in table
    assert table.count("\n| `") == len(methods())
