"""Nobody is let in: no code of a model's folder, no markup or formula of a name, no network."""

import ast
import csv
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from records import failed, record, write_all

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.vocabulary import load_tokenizer
from aim_exp.errors import AimError
from aim_exp.report.files import no_formula
from aim_exp.run.model_card import _code, _literal

ROOT = Path(__file__).parents[1]
CLASSES = ("AutoTokenizer", "AutoConfig", "AutoModelForCausalLM", "model_class")


def test_no_call_trusts_a_models_code() -> None:
    calls = []
    for path in (ROOT / "aim_exp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "from_pretrained" and ast.unparse(node.func.value) in CLASSES:
                    calls.append((path, {each.arg: each.value for each in node.keywords}))
                assert (
                    node.func.attr not in ("load", "loads")
                    or not ast.unparse(node.func).startswith(("pickle.", "torch."))
                    or path.name in ("convert.py", "near.py")
                ), path
    assert len(calls) == 10
    for path, options in calls:
        assert ast.unparse(options["trust_remote_code"]) == "False", path


def test_a_tokenizers_code_does_not_run(
    tmp_path: Path, tiny_population: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_population / "base", tmp_path / "model")
    settings = tmp_path / "model" / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    content |= {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    settings.write_text(json.dumps(content))
    (tmp_path / "model" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with suppress(AimError):  # it may refuse the folder, or do without the code
        load_tokenizer(Checkpoint(tmp_path / "model", "base"))
    assert not (tmp_path / "ran").exists()


NASTY = "<script>alert(1)</script>|[x](javascript:y)`*b*"


def test_names_are_literal_in_a_model_card() -> None:
    assert _literal(NASTY) == (r"\<script\>alert(1)\</script\>\|\[x\](javascript:y)\`\*b\*")
    assert _literal("a\n# b_c _d_") == r"a # b_c \_d\_"
    assert _code("a`b") == "`ab`"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-a", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert no_formula(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1, 0.5, None, True, "-0.5", "+1e-3", "a=b", "-inf"])
def test_numbers_stay_numbers(value: object) -> None:
    assert no_formula(value) == value


def test_a_reports_csvs_hold_no_formula(tmp_path: Path) -> None:
    from aim_exp.report import refresh

    evil = failed("=HYPERLINK(0)")
    write_all(tmp_path, record("omega=null"), evil)
    refresh(tmp_path)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert {row["error"] for row in rows} == {"", "'=HYPERLINK(0)"}


def test_the_default_experiment_needs_no_socket(tmp_path: Path, tiny_cache: Path) -> None:
    """Every socket but those of this machine's own files is refused, from the first import on."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.sendto', 'socket.getaddrinfo'):\n"
        "        target = arguments[1] if event != 'socket.getaddrinfo' else arguments[0]\n"
        "        host = target[0] if isinstance(target, tuple) else target\n"
        "        own = ('127.0.0.1', 'localhost', '::1')\n"
        "        if host not in own and not str(host).startswith('/'):\n"
        "            print('REFUSED', event, target, file=sys.stderr)\n"
        "            raise OSError('refused by the test')\n"
        "sys.addaudithook(refuse)\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), f"cache_dir={tiny_cache}", "benchmarks.limit=4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        },
    )
    assert done.returncode == 0, done.stderr
    assert "REFUSED" not in done.stderr
