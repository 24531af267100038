"""The commands as people type them: runs, sweeps, records, and bad input."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from conftest import LINE, Cli
from run_records import items_of, model_of, result
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aim_exp.population.embedded.items import KINDS

BENCHMARKS = {f"tiny_{kind}" for kind in KINDS}
FAST = ("benchmarks.limit=8", "tracker=none")


def given(family: Path) -> tuple[str, ...]:
    return (
        "population=custom",
        f"population.base={family / 'base'}",
        f"population.experts={{a: {family / 'a'}, b: {family / 'b'}}}",
        "benchmarks=none",
        "tracker=none",
        "hydra.run.dir=run",
    )


def test_one_run(cli: Cli, tmp_path: Path) -> None:
    done = cli("benchmarks.limit=8", "save_model=true", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    record = result(tmp_path / "run")
    assert (record["status"], record["method"], record["omega"]) == ("completed", "ties", 0.4)
    assert record["population"]["name"] == "tiny"
    assert record["population"]["merged"] == ["code", "instruct", "math"]
    assert set(record["scores"]) == set(record["stderr"]) == BENCHMARKS
    assert set(record["population_scores"]) == {"base", "code", "instruct", "math"}
    assert all(0 <= value <= 1 for value in record["scores"].values())
    assert record["hypervolume"] >= record["hypervolume_gain"] ** 6
    assert record["average"] == pytest.approx(sum(record["scores"].values()) / 6)
    assert 0 < record["dose"]["all"]["norm"] < 1
    assert record["versions"]["torch"]
    items = items_of(tmp_path / "run", "tiny_gsm8k")
    assert len(items) == model_of(record)["scores"]["tiny_gsm8k"]["n"] == 8
    right = [item["metrics"]["exact_match"] for item in items]
    assert sum(right) / 8 == pytest.approx(record["scores"]["tiny_gsm8k"])
    # The saved model is what was scored, and an ordinary one.
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    for words in ("merged", "hypervolume gain", "try next", "humaneval"):
        assert words in done.stdout
    # Again, from the store, to the same numbers; then the saved model by itself.
    again = cli("benchmarks.limit=8", "hydra.run.dir=again", "tracker=none")
    assert again.returncode == 0
    assert result(tmp_path / "again")["scores"] == record["scores"]
    assert "stream" not in result(tmp_path / "again")["timings"]
    saved = cli(
        "method=checkpoint", f"method.path={tmp_path / 'run' / 'model'}", "omega=null",
        "hydra.run.dir=saved", *FAST,
    )  # fmt: skip
    assert saved.returncode == 0, saved.stderr
    assert result(tmp_path / "saved")["scores"] == record["scores"]


def test_a_sweep_does_nothing_twice(cli: Cli, tmp_path: Path) -> None:
    sweep = ("-m", "method=ties,task_arithmetic", "omega=null,0.4,1", *FAST, "hydra.sweep.dir=s")
    plan = cli(*sweep, "plan=true")
    assert plan.returncode == 0
    assert not (tmp_path / "s").exists()
    keys = re.findall(r"[0-9a-f]{12}$", plan.stdout, re.MULTILINE)
    assert len(keys) >= 4, "at least the four recipes of the merge"
    assert len(keys) == len(set(keys)), "each key once for a sweep"
    done = cli(*sweep)
    assert done.returncode == 0, done.stderr
    records = [result(tmp_path / "s" / str(job)) for job in range(6)]
    assert [record["omega"] for record in records] == [None, 0.4, 1.0] * 2
    for plain, _, whole in (records[:3], records[3:]):
        assert plain["scores"] == whole["scores"]
        assert model_of(plain)["keys"] == model_of(whole)["keys"]
    # Six jobs, four recipes: each is merged and scored once.
    assert sum("stream" in record["timings"] for record in records) <= 4
    with (tmp_path / "s" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["completed"] * 6
    report = (tmp_path / "s" / "report.md").read_text()
    figures = sorted(path.name for path in (tmp_path / "s" / "figures").glob("*.png"))
    assert len(figures) == 6
    assert all(figure in report for figure in figures)


def test_methods_that_merge_nothing_and_references(
    cli: Cli, tmp_path: Path, tiny_population: Path
) -> None:
    joint = f"population.references={{joint: {tiny_population / 'code'}}}"
    done = cli("method=none", joint, "hydra.run.dir=run", *FAST)
    assert done.returncode == 0, done.stderr
    record = result(tmp_path / "run")
    assert record["scores"] is record["hypervolume_gain"] is None
    joint_scores = model_of(record, "joint")["scores"]
    values = {name: score["value"] for name, score in joint_scores.items()}
    assert values == record["population_scores"]["code"]


def test_a_population_of_ones_own(cli: Cli, tmp_path: Path, family: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"A sentence with the number {i} in it." for i in range(40)))
    done = cli(
        *given(family), "method=dare_ties", "save_model=true", "calibration=text",
        f"calibration.path={text}", "calibration.block_size=32", "population.merge=[b,a]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = result(tmp_path / "run")
    assert record["scores"] is None
    assert record["population"]["merged"] == ["b", "a"]
    assert record["dtype"] == "bfloat16"
    assert "calibration.n_samples=256: only 40 texts were usable" in record["warnings"]
    _, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path / "run" / "model", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]


BAD_INPUT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "omega": (("omega=1.5",), ("omega=1.5: must be in [0, 1]",)),
    "omega is NaN": (("omega=nan",), ("omega=nan: must be in [0, 1]",)),
    "density": (("method.density=0",), ("method.density=0: must be in (0, 1]",)),
    "expert": (("population.merge=[code,cooking]",), ("no expert is called cooking",)),
    "no base": (("population=custom",), ("population.base: has no value",)),
    "no experts": (
        ("population=custom", "population.base=."),
        ("population.experts: Ties merges experts, and there are none",),
    ),
    "no such device": (("device=cuda:7",), ("device=cuda:7: torch",)),
    "no calibration path": (("calibration=text",), ("calibration.path: has no value",)),
    "missing file": (
        ("calibration=text", "calibration.path=gone.txt"),
        ("calibration.path=gone.txt: no such file",),
    ),
    "missing folder": (
        ("method=checkpoint", "method.path=gone"),
        ("method.path=gone: no such folder",),
    ),
    "weight": (("method.weight={code: 1, x: 1}",), ("method.weight.x: no such expert",)),
    "taken name": (
        ("population=custom", "population.base=.", "population.experts={base: .}"),
        ("population.experts.base: the name is taken",),
    ),
    "tracker": (("tracker.mode=sometimes",), ("tracker.mode=sometimes",)),
    "several at once": (
        (
            "omega=-1",
            "method.density=2",
            "dtype=int8",
            "device=tpu",
            "aim.scaling=odd",
            "select.on=odd",
            "select.budget=1",
            "select.of=[omgea]",
        ),
        (
            "omega=-1.0",
            "method.density=2",
            "dtype=int8",
            "device=tpu",
            "aim.scaling=odd",
            "select.on=odd: must be validation or populations",
            "select.budget=1: must be at least 2",
        ),
    ),
    "unknown key": (("omga=0.3",), ("omga: there is no such key; did you mean omega",)),
    "unknown key of a method": (
        ("method.densty=0.3",),
        ("method.densty: there is no such key; did you mean method.density?",),
    ),
    "wrong type": (("omega=abc",), ("error: omega=abc: must be a number or null\n",)),
    "unknown option": (
        ("method=magic",),
        ("method=magic: no such option", "dare_linear, dare_ties"),
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case: str, cli: Cli, tmp_path: Path) -> None:
    overrides, expected = BAD_INPUT[case]
    done = cli(*overrides, "hydra.run.dir=run")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    for words in expected:
        assert words in done.stderr
    assert len(done.stderr.splitlines()) <= len(expected) + 1
    if not case.startswith(("unknown", "wrong type")):
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
            ".hydra",
            "result.json",
            "run.log",
        ]
        record = result(tmp_path / "run")
        assert record["status"] == "failed"
        assert expected[0] in record["error"]


def test_models_that_do_not_fit_are_refused(cli: Cli, tmp_path: Path, family: Path) -> None:
    for name in ("base", "a", "b"):
        shutil.copytree(family / name, tmp_path / "models" / name)
    weights = tmp_path / "models" / "b" / "model.safetensors"
    content = load_file(weights)
    content["model.norm.weight"] = content["model.norm.weight"][:5]
    save_file(content, weights)
    done = cli(*given(tmp_path / "models"), "omega=7")
    assert done.returncode == 1
    assert "b: tensor model.norm.weight has shape [5], base's has [24]" in done.stderr
    assert "omega=7.0" in done.stderr


def test_nan_weights_are_refused_where_they_appear(cli: Cli, tmp_path: Path, family: Path) -> None:
    for name in ("base", "a", "b"):
        shutil.copytree(family / name, tmp_path / "models" / name)
    weights = tmp_path / "models" / "b" / "model.safetensors"
    content = load_file(weights)
    content["model.norm.weight"][2] = float("nan")
    save_file(content, weights)
    done = cli(*given(tmp_path / "models"), "omega=null")
    assert done.returncode == 1
    assert "b: tensor model.norm.weight holds NaN or infinite values" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_goes_on_after_a_failed_job(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", "omega=7,null", "hydra.sweep.dir=s", *FAST)
    assert done.returncode == 1
    assert result(tmp_path / "s" / "0")["status"] == "failed"
    assert result(tmp_path / "s" / "1")["status"] == "completed"
    with (tmp_path / "s" / "results.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed", "completed"]
    assert "omega=7.0: must be in [0, 1]" in done.stdout[-2000:]
    assert "omega=7.0" in (tmp_path / "s" / "report.md").read_text()


def test_a_sweep_can_end_at_the_first_failure(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", "omega=7,null", "hydra.sweep.dir=s", "fail_fast=true", *FAST)
    assert done.returncode == 1
    assert not (tmp_path / "s" / "1" / "result.json").exists()
    with (tmp_path / "s" / "results.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed", "not run"]
    assert (tmp_path / "s" / "stop").read_text().startswith("ties omega=7: omega=7.0: must be")


def test_a_plan_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    assert cli("plan=true").returncode == 0
    assert cli("plan=true", "omega=7").returncode == 1
    assert not (tmp_path / "outputs" / "runs").exists()


def test_a_plan_leaves_results_alone(cli: Cli, tmp_path: Path) -> None:
    sweep = ("-m", "omega=7,null", "hydra.sweep.dir=s", *FAST)
    assert cli(*sweep).returncode == 1

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}

    before = content()
    plan = cli(*sweep[:1], "omega=null,0.4", *sweep[2:], "plan=true")
    assert plan.returncode == 0, "the failure was the sweep's"
    assert "omega=7" not in plan.stdout + plan.stderr
    assert content() == before


def test_tracebacks_are_for_those_who_ask(cli: Cli) -> None:
    done = cli("omega=7", "debug=true", "hydra.run.dir=run")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_run_is_called_by_what_was_set_and_says_what_to_try(cli: Cli) -> None:
    done = cli("population.merge=[code,math]", "hydra.run.dir=run", *FAST)
    assert done.returncode == 0, done.stderr
    assert "ties omega=0.4 population.merge=[code,math]" in done.stdout
    (hint,) = (line for line in done.stdout.splitlines() if line.startswith("try next"))
    for words in ("-m", "'population.merge=[code,math]'", "omega=null,0.2,0.4,0.6"):
        assert words in hint
    assert "hydra.run.dir" not in hint


def test_aim_on_a_checkpoint_needs_base_only(cli: Cli, tmp_path: Path, family: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"A sentence with the number {i} in it." for i in range(40)))
    done = cli(
        "population=custom", f"population.base={family / 'base'}", "method=checkpoint",
        f"method.path={family / 'a'}", "calibration=text", f"calibration.path={text}",
        "calibration.block_size=32", "benchmarks=none", "save_model=true", "tracker=none",
        "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "model" in [line.split()[0] for line in done.stdout.splitlines() if line.split()]
    record = result(tmp_path / "run")
    assert record["dose"]["all"]["norm"] < 1
    wrong = cli(
        "population=tiny", "method=checkpoint", f"method.path={family / 'a'}", "hydra.run.dir=w"
    )
    assert wrong.returncode == 1
    assert "error: method.path: " in wrong.stderr


def test_a_first_record_that_cannot_be_written_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run" / "result.json").mkdir(parents=True)
    done = cli(*LINE, "hydra.run.dir=run")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "result.json" in done.stderr
    assert "Traceback" not in done.stderr
