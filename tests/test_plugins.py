"""Parts from outside the package: their code is in the keys, and in what is told of errors."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from traceback import format_exception
from types import ModuleType
from typing import Any, cast

import pytest
from built_runs import STAGES, built, keys

from aim_exp.cli.explain import explain
from aim_exp.config.outside import copy_sources
from aim_exp.errors import ConfigError

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
from aim_exp.aim.calibration import EmbeddedTexts

@dataclass(frozen=True, kw_only=True)
class Mine(EmbeddedTexts):
    version = {version}
"""
EVALUATOR = """
from dataclasses import dataclass
from aim_exp.evaluate.evaluators import HfEvaluator

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
