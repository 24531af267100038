"""What each way into the program may import: each of these takes from 0.2 to 3 seconds."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LINE, ROOT
from records import record, shifted, write_all

HEAVY: set[str] = set(
    "torch transformers models lm_eval datasets pandas scipy sympy sklearn accelerate requests "
    "huggingface_hub wandb mlflow matplotlib jinja2 pymoo numpy ray submitit".split()
)
"""Top-level modules; `models` are transformers' own, of any architecture."""
SPY = """
import atexit, os, runpy, sys

@atexit.register
def tell():
    models = ["models" for name in sys.modules if ".modeling_" in name and ".auto." not in name]
    print(*{name.partition(".")[0] for name in sys.modules}, *models, file=sys.stderr)

sys.argv = sys.argv[1:]
run = runpy.run_path if os.sep in sys.argv[0] else runpy.run_module
run(sys.argv[0], run_name="__main__")
"""


def imports(*command: str, cwd: Path, watched: set[str] = HEAVY) -> set[str]:
    """Of these modules, those that the command imports."""
    done = subprocess.run(
        [sys.executable, "-c", SPY, *command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return watched & set(done.stderr.splitlines()[-1].split())


def of_run(*overrides: str, cwd: Path) -> set[str]:
    return imports(str(ROOT / "run.py"), *overrides, cwd=cwd)


def test_help(tmp_path: Path) -> None:
    watched = HEAVY | {"hydra", "omegaconf", "rich"}
    assert imports(str(ROOT / "run.py"), "--help", cwd=tmp_path, watched=watched) == set()


def test_a_merge_that_scores_nothing(family: Path, tmp_path: Path) -> None:
    """Nothing is known of these models yet; W&B brings what its own client needs."""
    line = (
        "population=custom", f"population.base={family / 'base'}", "omega=null",
        f"population.experts={{a: {family / 'a'}, b: {family / 'b'}}}", "save_model=true",
        "benchmarks=none", "cache_dir=cache", "hydra.run.dir=run",
    )  # fmt: skip
    assert of_run(*line, cwd=tmp_path) <= {"torch", "numpy", "wandb", "requests", "jinja2"}
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_what_is_cached(there: Path) -> None:
    """Scores are read, and drawn: no model, and nothing that asks one."""
    line = (*LINE, "cache_dir=cache")
    assert of_run(*line, "plan=true", cwd=there) <= {"numpy", "scipy"}
    run = of_run(*line, "hydra.run.dir=again", cwd=there)
    assert run <= {"torch", "numpy", "pymoo", "matplotlib", "jinja2"}


@pytest.mark.slow
def test_a_default_run(there: Path) -> None:
    line = (*LINE, "cache_dir=cache", "method.density=0.3", "hydra.run.dir=new")
    assert HEAVY - of_run(*line, cwd=there) >= {"mlflow", "ray", "submitit", "sklearn"}


def test_a_report(tmp_path: Path) -> None:
    omegas = ["null", *(i / 20 for i in range(1, 12))]
    write_all(
        tmp_path, *(record(f"omega={w}", scores=shifted(i / 99)) for i, w in enumerate(omegas))
    )
    found = imports("aim_exp.report", str(tmp_path), cwd=tmp_path)
    assert found <= {"numpy", "pymoo", "matplotlib", "jinja2", "scipy"}
