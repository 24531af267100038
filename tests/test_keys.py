"""Content keys: which override changes which stage, and how a store keeps what was made."""

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from traceback import format_exception
from types import ModuleType
from typing import Any, cast

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from aim_exp.app import CONFIG_FOLDER
from aim_exp.build import Run, build
from aim_exp.errors import ConfigError
from aim_exp.explain import explain
from aim_exp.keys import canonical_json, content_key
from aim_exp.plugins import copy_sources
from aim_exp.store import Store
from aim_exp.types import StageSpec

STAGES = {"population", "saliency", "members", "merged", "scores"}
NOTHING: set[str] = set()

TABLE: dict[str, set[str]] = {
    # The models: their training, or which of them are merged.
    "population.seed=1": STAGES,
    "population.merge=[code,math]": {"merged"},
    "population.merge=[math,instruct,code]": {"merged"},
    "population.name=renamed": NOTHING,
    # The merge.
    "method=task_arithmetic": {"merged"},
    "method.density=0.3": {"merged"},
    "method.weight=0.9": {"merged"},
    "method.weight=1": NOTHING,
    "method.weight={code: 1, instruct: 1, math: 1}": NOTHING,
    "method.scale=0.7": {"merged"},
    "method.normalize=false": {"merged"},
    "dtype=bfloat16": {"saliency", "members", "merged", "scores"},
    "dtype=float32": NOTHING,
    # AIM.
    "omega=0.6": {"merged"},
    "omega=null": {"merged", "saliency"},
    "omega=1": {"merged", "saliency"},
    "aim.scaling=uniform": {"merged"},
    "aim.scaling=shuffled": {"merged"},
    "aim.exclude=['*norm*']": {"merged"},
    "aim.tied_head=relax": {"merged"},
    "aim.statistic=rms": {"saliency", "merged"},
    # The calibration set.
    "calibration.n_samples=100": {"saliency", "merged"},
    "calibration.block_size=64": {"saliency", "merged"},
    "calibration.seed=7": {"saliency", "merged"},
    "calibration.add_special_tokens=false": {"saliency", "merged"},
    "calibration.long_texts=skip": {"saliency", "merged"},
    "calibration.offload=layers": NOTHING,
    # How responses are made and scored.
    "evaluator.max_length=128": {"members", "merged", "scores"},
    "evaluator.batch_size=7": NOTHING,
    "evaluator=hf_process": {"members", "merged", "scores"},
    "benchmarks.limit=10": {"scores"},
    "benchmarks.num_fewshot=1": {"scores"},
    "benchmarks.chat_template=true": {"scores"},
    "population.chat_template=code": NOTHING,  # until benchmarks use one
    "benchmarks.system_instruction=Be brief.": {"scores"},
    "benchmarks.fewshot_as_multiturn=true": {"scores"},
    "benchmarks.generation={max_gen_toks: 9}": {"scores"},
    "+benchmarks.tasks.math.reference_point=0.1": NOTHING,
    "benchmarks.reference_point=0.1": NOTHING,
    "benchmarks.tasks.math.metric=other": NOTHING,
    "repeat=1": {"members", "merged", "scores"},
    # What changes no number; the seed only where something is drawn.
    "seed=5": NOTHING,
    "device=cpu": NOTHING,
    "threads=2": NOTHING,
    "tracker=none": NOTHING,
    "save_model=true": NOTHING,
    "vocabulary=base": NOTHING,  # as long as all have one
}


def built(tmp_path: Path, *overrides: str) -> Run:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", [f"cache_dir={tmp_path}", *overrides], return_hydra_config=True)
        choices = dict(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        return build(config, choices)


def keys(run: Run) -> dict[str, object]:
    plan = run.plan
    assert plan.merged
    return {
        "population": plan.population and plan.population.key,
        "saliency": plan.saliency and plan.saliency.key,
        "members": [model.responses.key for model in plan.members],
        "merged": plan.merged.responses.key,
        # By the ingredients of their own: a change of responses changes every score anyway.
        "scores": [stage.spec["task"] for model in plan.members for stage in model.scores.values()]
        + [model.responses.key for model in plan.members],
    }


@pytest.mark.parametrize("override", TABLE)
def test_an_override_changes_these_keys_and_no_others(override: str, tmp_path: Path) -> None:
    before, after = keys(built(tmp_path)), keys(built(tmp_path, override))
    assert {stage for stage in STAGES if before[stage] != after[stage]} == TABLE[override]


@pytest.mark.parametrize(
    ("setting", "draws"),
    [
        ("method=ties", False),
        ("method=dare_linear", True),
        ("method=dare_ties", True),
        ("method=authors/dare_ties", False),
        ("aim.scaling=shuffled", True),
        ("aim.scaling=inverted", False),
    ],
)
def test_the_seed_counts_where_something_is_drawn(
    setting: str, draws: bool, tmp_path: Path
) -> None:
    runs = [built(tmp_path, setting, f"seed={seed}") for seed in (0, 1)]
    first, second = (keys(run)["merged"] for run in runs)
    assert (first != second) == draws
    assert {run.recipe.stochastic for run in runs} == {draws}


def test_the_seed_of_a_control_that_does_not_run_counts_not(tmp_path: Path) -> None:
    off = ("aim.scaling=shuffled", "omega=null")
    assert keys(built(tmp_path, *off)) == keys(built(tmp_path, *off, "seed=1"))


METHOD = """
from dataclasses import dataclass
from aim_exp.merge import Ties

@dataclass(frozen=True, kw_only=True)
class Mine(Ties):
    def prepare(self, inputs):
        return super().prepare(inputs)  # version {version}
"""
CALIBRATION = """
from dataclasses import dataclass
from aim_exp.calibration import EmbeddedTexts

@dataclass(frozen=True, kw_only=True)
class Mine(EmbeddedTexts):
    version = {version}
"""
EVALUATOR = """
from dataclasses import dataclass
from aim_exp.evaluators import HfEvaluator

@dataclass(frozen=True, kw_only=True)
class Mine(HfEvaluator):
    version = {version}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write code to a module of this name, as if a new process would import it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(code: str) -> str:
        (tmp_path / "own_parts.py").write_text(code)
        sys.modules.pop("own_parts", None)
        importlib.invalidate_caches()
        return "own_parts.Mine"

    yield write
    sys.modules.pop("own_parts")


@pytest.mark.parametrize(
    ("group", "code", "changed"),
    [
        ("method", METHOD, {"merged"}),
        ("calibration", CALIBRATION, {"saliency", "merged"}),
        ("evaluator", EVALUATOR, {"members", "merged", "scores"}),
    ],
)
def test_an_edited_part_of_your_own_is_a_new_recipe(
    group: str, code: str, changed: set[str], tmp_path: Path, module: Callable[[str], str]
) -> None:
    own = f"{group}._target_={module(code.format(version=1))}"
    first, again = keys(built(tmp_path, own)), keys(built(tmp_path, own))
    assert first == again
    module(code.format(version=2))
    edited = keys(built(tmp_path, own))
    assert {stage for stage in STAGES if first[stage] != edited[stage]} == changed
    module(code.format(version=1))
    assert keys(built(tmp_path, own)) == first


def test_a_base_class_of_your_own_counts_too(tmp_path: Path, module: Callable[[str], str]) -> None:
    child = "from own_parts import Mine\nclass Child(Mine): pass\n"
    (tmp_path / "own_child.py").write_text(child)
    found = []
    for version in (1, 2):
        module(METHOD.format(version=version))
        sys.modules.pop("own_child", None)
        found.append(keys(built(tmp_path, "method._target_=own_child.Child"))["merged"])
    assert found[0] != found[1]


def test_a_run_keeps_the_code_that_it_ran(tmp_path: Path, module: Callable[[str], str]) -> None:
    """And not what its file has become since."""
    child = "from own_parts import Mine\nclass Child(Mine): pass\n"
    (tmp_path / "own_child.py").write_text(child)
    module(METHOD.format(version=1))
    sys.modules.pop("own_child", None)
    run = built(tmp_path, "method._target_=own_child.Child")
    (tmp_path / "own_child.py").write_text("edited")
    copy_sources(run.coded, tmp_path / "run" / "code")
    kept = {path.name: path.read_text() for path in (tmp_path / "run" / "code").rglob("*.*")}
    assert kept == {"own_child.py": child, "own_parts.py": METHOD.format(version=1)}
    copy_sources(built(tmp_path).coded, tmp_path / "other")
    assert not (tmp_path / "other").exists(), "the package's own code goes by its commit"


BROKEN = {
    "def f(:\n": "SyntaxError in {file} line 1: invalid syntax",
    "x = 1\nimport scpiy\n": "ModuleNotFoundError in {file} line 2: No module named 'scpiy'",
    "class Mien: pass\n": "own_parts has no class Mine; did you mean Mien?",
    "None.mine\n": "AttributeError in {file} line 1: 'NoneType' object has no attribute 'mine'",
    "class Mine:\n  def __init__(self, **settings):\n    self.x\n":
        "AttributeError in {file} line 3: 'Mine' object has no attribute 'x'",
}  # fmt: skip


@pytest.mark.parametrize("code", BROKEN)
def test_a_part_that_cannot_be_built_says_why_and_where(
    code: str, tmp_path: Path, module: Callable[[str], str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        built(tmp_path, f"method._target_={module(code)}")
    words = BROKEN[code].format(file=tmp_path / "own_parts.py")
    assert refused.value.problems == [f"method._target_=own_parts.Mine: cannot be built ({words})"]
    traceback = "".join(format_exception(refused.value))
    assert "own_parts" in traceback.partition("direct cause")[0], "for debug=true"
    sys.modules.setdefault("own_parts", ModuleType("own_parts"))  # what is broken is not imported


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        built(tmp_path, "method._target_=own_prats.Mine")
    (problem,) = refused.value.problems
    assert problem.endswith("(ModuleNotFoundError: No module named 'own_prats')")


def test_an_error_in_a_part_says_where(tmp_path: Path, module: Callable[[str], str]) -> None:
    code = METHOD.format(version=1).replace("inputs)  #", "inputs.smu)  #")
    run = built(tmp_path, f"method._target_={module(code)}")
    with pytest.raises(AttributeError) as raised:
        run.recipe.method.prepare(cast("Any", None))
    place = f"{tmp_path / 'own_parts.py'} line {1 + code[: code.index('smu')].count(chr(10))}"
    assert explain(raised.value) == (
        f"AttributeError in {place}: 'NoneType' object has no attribute 'smu' "
        "(debug=true shows the traceback)"
    )


def test_a_part_in_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = ModuleType("own_notebook")
    exec(METHOD.format(version=1), notebook.__dict__)
    monkeypatch.setitem(sys.modules, "own_notebook", notebook)
    with pytest.raises(ConfigError) as refused:
        built(tmp_path, "method._target_=own_notebook.Mine")
    (problem,) = refused.value.problems
    assert problem.startswith("method._target_=own_notebook.Mine: its code is in no file")
    assert problem.endswith("put it into a module")


def test_one_number_has_one_spelling() -> None:
    assert canonical_json({"b": 1.0, "a": [0.5, True, None]}) == '{"a":[0.5,true,null],"b":1}'
    assert content_key("s", 1, {"w": 1}) == content_key("s", 1, {"w": 1.0})
    assert content_key("s", 1, {}) != content_key("s", 2, {}) != content_key("t", 2, {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


SPEC = StageSpec("stage", 1, {"a": 1})


def test_an_entry_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.get_or_make(SPEC, broken)
    assert not store.has(SPEC)
    assert not list((tmp_path / "partial").iterdir())
    entry = store.get_or_make(SPEC, lambda folder: (folder / "whole").touch())
    assert sorted(path.name for path in entry.iterdir()) == ["made.json", "spec.json", "whole"]


def test_an_entry_that_resumes_keeps_what_was_done(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make(folder: Path) -> None:
        (folder / "second").touch() if (folder / "first").exists() else (folder / "first").touch()
        if not (folder / "second").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_make(SPEC, make, resumes=True)
    assert not store.has(SPEC)
    entry = store.get_or_make(SPEC, make, resumes=True)
    made = ["first", "made.json", "second", "spec.json"]
    assert sorted(path.name for path in entry.iterdir()) == made
    assert not list((tmp_path / "partial").iterdir())


def test_an_entry_knows_what_it_took_and_where(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.made(SPEC) is None
    store.get_or_make(SPEC, lambda folder: time.sleep(0.2))
    made = store.made(SPEC)
    assert made
    assert 0.2 <= made.seconds < 5
    assert made.machine.endswith("GiB of memory") or " x " in made.machine
    assert f"{os.cpu_count()} processors" in made.machine
    store.get_or_make(SPEC, lambda folder: time.sleep(9))
    assert store.made(SPEC) == made

    earlier, began = StageSpec("stage", 1, {"a": 2}), time.monotonic() - 100
    store.get_or_make(earlier, lambda folder: None, since=began)
    made = store.made(earlier)
    assert made
    assert 100 <= made.seconds < 105


def make_slowly(root: Path) -> None:
    def make(folder: Path) -> None:
        with (root / "made").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)

    Store(root).get_or_make(SPEC, make)


def test_of_many_processes_one_makes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=make_slowly, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len((tmp_path / "made").read_text().split()) == 1
