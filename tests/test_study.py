"""Studies: what a lock holds and what is exploratory, how replicates are kept, what they say."""

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import LINE
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy.stats import linregress, t

from aim_exp.app import CONFIG_FOLDER
from aim_exp.errors import AimError, ConfigError
from aim_exp.statistics import ReplicatedDifference, compare_replicates
from aim_exp.store.run_record import read_record
from aim_exp.store.study_lock import Role, StudyLock, read_lock
from aim_exp.study.__main__ import main
from aim_exp.study.design import lock, read_design
from aim_exp.study.figure import save_figure
from aim_exp.study.findings import chosen, findings
from aim_exp.study.replicates import HEADER, kept_replicates, run_replicate

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
        ({"margin": 0}, "margin=0: must be above 0"),
        ({"first": 1}, "first=1: must be at least 2"),
        ({"extra": 1}, "extra: is no key of a study"),
        ({"primary": {"arm": "aim", "against": "none"}}, "of the arms plain, aim, control"),
        ({"replicates": {"development": [0], "test": [0, 1]}}, "a number stands twice"),
        ({"replicates": {"test": [0, 1]}}, "must be {development: "),
        ({"common": ["population=tiny", "benchmark=x"]}, "population=tiny benchmark=x"),
        ({"replicates": {"development": [], "test": [15]}}, "items_seed=15: must be one of"),
        ({"arms": {**DESIGN["arms"], "plain": ["benchmarks.limit=5"]}}, "on other items"),
        ({"arms": {**DESIGN["arms"], "plain": [["omega=null"]]}}, "or one for each of the 2 entr"),
        ({"arms": {**DESIGN["arms"], "plain": "???"}}, "plain=...: must be a list of overrides"),
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


def test_an_arm_may_have_settings_of_its_own_for_each_method(tmp_path: Path) -> None:
    best = [["method.scale=0.5"], ["method.scale=1.5", "omega=0.2"]]
    design, _ = read_design(write(tmp_path, arms={**DESIGN["arms"], "best": best}))
    assert design.settings("best", 0) == ["method=task_arithmetic", "method.scale=0.5"]
    assert design.settings("best", 1) == ["method=ties", "method.scale=1.5", "omega=0.2"]
    assert design.settings("aim", 1) == ["method=ties", "omega=0.4"]


@pytest.fixture
def kept(tmp_path: Path, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock of a study of two items for each benchmark, whose replicate 1 is kept."""
    monkeypatch.chdir(tmp_path)
    common = ["benchmarks=held_out", *LINE, f"cache_dir={tiny_cache}", "omega=null"]
    arms = {"aim": ["omega=0.4"], "control": ["omega=0.4", "aim.scaling=uniform"]}
    primary = {"arm": "aim", "against": "control"}
    path = lock(write(tmp_path, common=common, draws=["benchmarks.items_seed"], arms=arms,
                      over=[["method=linear"]], primary=primary, secondary=[]))  # fmt: skip
    run_replicate(path, 1)
    return path


def test_a_replicate_is_kept_item_by_item_and_not_run_again(kept: Path) -> None:
    (replicate,) = kept_replicates(kept)
    assert set(replicate.outcomes) == {"base", "code", "instruct", "math", "aim/0", "control/0"}
    folder = Path("outputs/studies/aim_against_its_control/1/aim_0")
    record = read_record(folder)
    assert record.merged
    assert replicate.about["jobs"]["aim/0"]["dose"]["norm"] == record.dose["all"].norm
    assert replicate.about["jobs"]["aim/0"]["dose"]["delta"] == record.dose["all"].delta != 0
    assert "tiny_mmlu" not in replicate.about["objectives"]
    for name, score in record.merged.scores.items():
        own = replicate.outcomes["aim/0"][name]
        assert len(own.ids) == score.n
        if name == "tiny_text":
            bits = -own.nats.sum() / np.log(2) / own.bytes.sum()
            assert bits == pytest.approx(score.metrics["bits_per_byte,none"], rel=1e-4)
        else:
            assert own.score.mean() == pytest.approx(score.value)
            gold = score.metrics["gold_loglikelihood,none"]
            assert own.nats.mean() == pytest.approx(gold, abs=1e-4)
    before = (folder / "result.json").stat().st_mtime_ns
    content = (file := run_replicate(kept, 1)).read_bytes()
    file.unlink()
    assert run_replicate(kept, 1).read_bytes() == content
    assert (folder / "result.json").stat().st_mtime_ns == before
    page = findings(kept)
    assert "Test replicates so far: 1 of 2." in page
    assert "| aim minus control | primary |" in page
    assert "| 2 of 2 |" in page
    with pytest.raises(AimError, match="7: is no replicate of"):
        run_replicate(kept, 7)


BENCHMARKS = ("tiny_math", "tiny_gsm8k")
SHARED = "tiny_mmlu"
"""Each replicate has the same items of it."""
ITEMS = 4


def keep(path: Path, leads: list[float]) -> None:
    """Replicates 1, 2, ...: in each, `aim` has so many points more than every other arm.

    On `SHARED` it has twice as many on half of the items.
    """
    for number, lead in enumerate(leads, 1):
        rows = [list(HEADER)]
        for model in ("base", *(f"{arm}/0" for arm in DESIGN["arms"])):
            own = lead / 100 if model.startswith("aim") else 0.0
            for item in range(ITEMS):
                scores = {**dict.fromkeys(BENCHMARKS, own), SHARED: 2 * own * (item % 2)}
                rows += [[model, b, b, str(item), str(0.5 + score), "-1", ""]
                         for b, score in scores.items()]  # fmt: skip
        keep_rows(path, number, rows, BENCHMARKS)


def keep_rows(
    path: Path, number: int, rows: Sequence[Sequence[str]], objectives: Sequence[str]
) -> None:
    dose = {"mean_r": 0.9, "norm": 0.9, "outputs": 0.5, "delta": 10 + number}
    jobs = {row[0]: {"dose": dose, "config": "another"} for row in rows if "/" in row[0]}
    about = {"commit": "0123456789", "objectives": objectives, "jobs": jobs}
    path.with_suffix("").mkdir(exist_ok=True)
    (path.with_suffix("") / f"{number}.json").write_text(json.dumps(about))
    with gzip.open(path.with_suffix("") / f"{number}.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows(rows)


def test_of_settings_that_score_alike_the_first_is_chosen(tmp_path: Path) -> None:
    arms = {f"plain_{scale}": ["omega=null", f"method.scale={scale}"] for scale in (1, 2, 3)}
    path = lock(write(tmp_path, replicates={"development": [1], "test": []}, arms=arms,
                      over=[["method=ties"]], secondary=[],
                      primary={"arm": "plain_1", "against": "plain_2"}))  # fmt: skip
    scores = {"plain_1": (0.3, 0.2, 0.1), "plain_2": (0.1, 0.2, 0.3), "plain_3": (0.1, 0.1, 0.1)}
    assert sum(scores["plain_2"]) > sum(scores["plain_1"])  # by what floats lose
    benchmarks = ("tiny_math", "tiny_gsm8k", "tiny_mbpp")
    rows = [[f"{arm}/0", benchmark, benchmark, "0", str(score), "-1", ""]
            for arm, own in scores.items()
            for benchmark, score in zip(benchmarks, own, strict=True)]  # fmt: skip
    keep_rows(path, 1, [list(HEADER), *rows], benchmarks)
    assert chosen(read_lock(path), kept_replicates(path)) == {"plain": ["plain_1"]}


def test_a_verdict_waits_for_as_many_replicates_as_the_lock_asks_for(tmp_path: Path) -> None:
    replicates = {"development": [], "test": list(range(1, 9))}
    path = lock(write(tmp_path, replicates=replicates, over=[["method=ties"]]))
    with pytest.raises(AimError, match="holds no replicate"):
        findings(path)
    keep(path, [3.0, 3.5, 2.5, 3.0])
    page = findings(path)
    assert "Test replicates so far: 4 of 6 to 8." in page
    assert "| aim minus control | primary | +3.00 |  | +3.00 +3.50 +2.50 +3.00 |" in page
    assert "not yet" in page
    keep(path, [3.0, 3.5, 2.5, 3.0, 3.2, 2.8])
    page = findings(path)  # a deviation of .33 would be seen in six
    assert "Test replicates so far: 6 of 6." in page
    assert page.count("| better |") == 2
    assert "by replicate: 11.00 12.00 13.00 14.00 15.00 16.00. Where it" in page
    line: Any = linregress(np.arange(6) / np.std(np.arange(6), ddof=1), [3, 3.5, 2.5, 3, 3.2, 2.8])
    low, high = line.slope + t.ppf([0.025, 0.975], 4) * line.stderr
    told = f"changes by {line.slope:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"
    assert told in page
    shares = [2 * lead * (np.arange(ITEMS) % 2) for lead in (3.0, 3.5, 2.5, 3.0, 3.2, 2.8)]
    shared = compare_replicates(
        ReplicatedDifference([np.array(shares, dtype=np.float64)], shared_items=True)
    )
    assert f"| {SHARED}, points | +3.00 | {shared.low:+.2f} to {shared.high:+.2f} |" in page
    keep(path, [5.0, 1.0, 4.0, 0.0, 5.0, 3.0])
    page = findings(path)  # one of 2.1 is too wide for the margin, however many there are
    assert "Test replicates so far: 6 of 8." in page
    assert page.count("| not yet |") == 2
    keep(path, [0.1, -0.1, 0.2, 0.0, 0.1, -0.1])
    assert findings(path).count("| equivalent |") == 2


def test_of_many_replicates_means_are_shown_and_the_number_may_be_fixed(tmp_path: Path) -> None:
    replicates = {"development": [], "test": list(range(1, 15))}
    path = lock(write(tmp_path, replicates=replicates, over=[["method=ties"]], first=14))
    keep(path, [3.0, 3.5] * 6)
    assert "Test replicates so far: 12 of 14." in findings(path)
    keep(path, [3.0, 3.5] * 7)
    page = findings(path)
    assert "Test replicates so far: 14 of 14." in page
    assert "| aim minus control | primary | +3.25 | +3.10 to +3.40 | 14 of 14 above 0 |" in page
    assert "| 14, mean |" in page
    assert "by replicate: from 11.00 to 24.00. Where it" in page


def test_without_test_replicates_there_are_differences_and_no_verdicts(tmp_path: Path) -> None:
    replicates = {"development": list(range(1, 8)), "test": []}
    path = lock(write(tmp_path, replicates=replicates, over=[["method=ties"]]))
    keep(path, [3.0])
    assert "aim minus control" not in findings(path)
    keep(path, [3.0, 3.5] * 3)
    page = findings(path)
    assert "| aim minus control | +3.25 |" in page
    assert not {"better", "equivalent", "yet", "(Holm)", "verdict"} & set(page.split())


def test_a_figure_shows_the_differences(tmp_path: Path) -> None:
    path = lock(write(tmp_path, over=[["method=ties"]]))
    with pytest.raises(AimError, match="holds no replicate"):
        save_figure(path)
    keep(path, [3.0, 3.5])
    assert main(["figure", str(path)]) == 0
    assert {each.suffix for each in tmp_path.glob("study.p*")} == {".png", ".pdf"}
