"""Locks of studies: what they hold, what they call exploratory, what is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from aim_exp.app import CONFIG_FOLDER
from aim_exp.errors import AimError, ConfigError
from aim_exp.store.study_lock import Role, StudyLock, read_lock
from aim_exp.study import lock, main

DESIGN: dict[str, Any] = {
    "name": "aim_against_its_control",
    "question": "Does AIM beat a uniform shrink?",
    "common": ["population=tiny", "benchmarks=held_out"],
    "draws": ["population.seed", "benchmarks.items_seed"],
    "replicates": {"development": [0], "test": [1, 2]},
    "over": [["method=task_arithmetic"], ["method=ties"]],
    "arms": {
        "plain": ["omega=null"],
        "aim": ["omega=0.4"],
        "control": ["omega=0.4", "aim.scaling=uniform"],
    },
    "primary": {"arm": "aim", "against": "control"},
    "secondary": [{"arm": "aim", "against": "plain"}],
    "margin": 1.0,
    "rules": "None but NaN is excluded.",
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**DESIGN, **changes}, sort_keys=False))
    return path


def config(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        composed = compose("config", [*DESIGN["common"], *overrides])
    content = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> StudyLock:
    return read_lock(lock(write(tmp_path_factory.mktemp("study"))))


def run(arm: str, replicate: int, *more: str, method: str = "ties") -> dict[str, Any]:
    draws = [f"{key}={replicate}" for key in DESIGN["draws"]]
    return config(*DESIGN["arms"][arm], f"method={method}", *draws, *more)


def test_a_lock_holds_the_design_its_jobs_and_the_items(locked: StudyLock) -> None:
    assert locked.design == DESIGN
    assert locked.margin == 1.0
    assert (locked.development, locked.test) == ((0,), (1, 2))
    assert len(locked.jobs) == len({job.config for job in locked.jobs}) == 3 * 2 * 3
    assert set(locked.items) == {"0", "1", "2"}
    digests = {n: str(about["tiny_math"].get("items_seed")) for n, about in locked.items.items()}
    assert len(set(digests.values())) == 3
    recall = {about["tiny_mmlu"]["items"] for about in locked.items.values()}
    assert len(recall) == 1
    assert len(locked.code) == 64


def test_a_run_is_found_by_its_configuration(locked: StudyLock) -> None:
    job = locked.job(run("aim", 1, "device=cpu", "tracker=none", "cache_dir=elsewhere",
                         "select.on=populations"))  # fmt: skip
    assert job is not None
    assert (job.arm, job.replicate, job.over) == ("aim", 1, 1)
    assert locked.job(run("aim", 1, "method.density=0.3")) is None
    assert locked.job(run("aim", 9)) is None


def test_what_is_not_in_the_lock_is_exploratory(locked: StudyLock) -> None:
    assert locked.role(run("aim", 1), run("control", 1)) is Role.PRIMARY
    assert locked.role(run("aim", 2), run("plain", 2)) is Role.SECONDARY
    for one, other in (
        (run("control", 1), run("aim", 1)),
        (run("control", 1), run("plain", 1)),
        (run("aim", 0), run("control", 0)),  # development
        (run("aim", 1), run("control", 2)),
        (run("aim", 1), run("control", 1, method="task_arithmetic")),
        (run("aim", 1, "omega=0.6"), run("control", 1)),
    ):
        assert locked.role(one, other) is Role.EXPLORATORY


def test_a_study_is_locked_once(tmp_path: Path) -> None:
    study = write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "aim_exp.study", "lock", str(study)],
        capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True,
    )  # fmt: skip
    assert "study.lock: locked" in done.stdout
    before = study.with_suffix(".lock").read_text()
    with pytest.raises(AimError, match="is locked already"):
        lock(study)
    assert study.with_suffix(".lock").read_text() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"margin": 0}, "margin=0: must be in"),
        ({"extra": 1}, "extra: is no key of a study"),
        ({"primary": {"arm": "aim", "against": "none"}}, "of the arms plain, aim, control"),
        ({"replicates": {"development": [0], "test": [0, 1]}}, "a number stands twice"),
        ({"replicates": {"test": [0, 1]}}, "must be {development: "),
        ({"common": ["population=tiny", "benchmark=x"]}, "population=tiny benchmark=x"),
        ({"replicates": {"development": [], "test": [15]}}, "items_seed=15: must be one of"),
        ({"arms": {**DESIGN["arms"], "plain": ["benchmarks.limit=5"]}}, "on other items"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(tmp_path, **changes)
    with pytest.raises(ConfigError, match=words):
        lock(study)
    assert main(["lock", str(study)]) == 1
    assert "error:" in capsys.readouterr().err
    assert not study.with_suffix(".lock").exists()


def test_a_missing_key_and_a_broken_lock_are_said(tmp_path: Path) -> None:
    study = write(tmp_path)
    study.write_text("name: x")
    with pytest.raises(ConfigError, match="margin: is missing"):
        lock(study)
    broken = tmp_path / "x.lock"
    broken.write_text("{}")
    with pytest.raises(AimError, match="not a readable lock"):
        read_lock(broken)
