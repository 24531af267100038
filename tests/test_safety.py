"""Nobody is let in: no code of a model's folder, no markup or formula of a name, no network."""

import ast
import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import wandb
from command_line import run_here
from records import failed, record, write_all

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.vocabulary import load_tokenizer
from aim_exp.errors import AimError
from aim_exp.report.tables.csv import no_formula
from aim_exp.run.model_card import _code, _literal
from aim_exp.store.run_record import FILE_NAME
from aim_exp.store.stage_spec import file_name

ROOT = Path(__file__).parents[1]
CLASSES = ("AutoTokenizer", "AutoConfig", "AutoModelForCausalLM", "model_class")


def test_no_call_trusts_a_models_code() -> None:
    calls = []
    for path in (ROOT / "aim_exp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "from_pretrained" and ast.unparse(node.func.value) in CLASSES:
                    calls.append((path, {each.arg: each.value for each in node.keywords}))
                function = ast.unparse(node.func)
                assert not function.startswith("pickle.load") or path.name == "near.py", path
                if function == "torch.load":
                    (only,) = (each for each in node.keywords if each.arg == "weights_only")
                    assert ast.unparse(only.value) == "True", path
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
OUTSIDE = "../../../../../outside"
"""A name that is a path: of an expert, and of a benchmark."""
TOKENS = {
    "WANDB_API_KEY": "planted0" * 5, "HF_TOKEN": "hf_planted1",
    "HUGGING_FACE_HUB_TOKEN": "planted2",
    "MLFLOW_TRACKING_URI": "https://me:planted3@host", "WANDB_BASE_URL": "https://me:planted4@host",
}  # fmt: skip


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, tiny_population: Path) -> Path:
    """The folder above that of a sweep, with tokens in its environment and names from others.

    Its first job is saved and tracked, its second refused.
    """
    top = tmp_path_factory.mktemp("others")
    within = top / "1" / "2" / "3"
    experts = {OUTSIDE: tiny_population / "code", NASTY: tiny_population / "math"}
    tasks = {OUTSIDE: "aim_tiny_gsm8k", "b/c": "aim_tiny_ifeval"}
    options = {
        "population": {"base": tiny_population / "base", "experts": experts},
        "benchmarks": {"tasks": tasks, "task_folder": "tiny", "limit": 2},
    }
    for group, default in {"population": "custom", "benchmarks": "lm_eval"}.items():
        (within / "conf" / group).mkdir(parents=True)
        content = json.dumps({"defaults": [default], **options[group]}, default=str)
        (within / "conf" / group / "of_others.yaml").write_text(content)
    line = ("-m", "-cd", "conf", "population=of_others", "benchmarks=of_others", "omega=0.4,7",
            "save_model=true", "cache_dir=cache", "hydra.sweep.dir=sweep")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TOKENS.items():
            patch.setenv(name, value)
        assert run_here(*line, cwd=within).returncode == 1
    wandb.teardown()  # it remembers keys
    statuses = [json.loads((within / "sweep" / n / FILE_NAME).read_text())["status"] for n in "01"]
    assert statuses == ["completed", "failed"]
    return top


@pytest.mark.slow
def test_names_lead_out_of_no_folder(others: Path) -> None:
    within = others / "1" / "2" / "3"
    files = [path for path in others.rglob("*") if path.is_file()]
    assert all(within in path.parents for path in files)
    assert {path.name for path in within.iterdir()} == {"conf", "cache", "sweep"}
    assert {path.name for path in (within / "sweep" / "0" / "items").iterdir()} == {
        f"{OUTSIDE.replace('/', '%2F')}.jsonl.gz", "b%2Fc.jsonl.gz",
    }  # fmt: skip


def test_a_name_becomes_one_of_a_file() -> None:
    assert file_name("tiny_gsm8k") == "tiny_gsm8k"
    for name in (OUTSIDE, "a\0b", "C:\\x", "x" * 1000, "\n"):
        assert (Path("in") / f"{file_name(name)}.log").parent == Path("in")
        assert len(file_name(name)) < 130
    assert file_name("x" * 1000) != file_name("x" * 1001)


def test_tokens_of_the_environment_are_in_no_file(others: Path) -> None:
    paths = [path for path in others.rglob("*") if path.is_file()]
    assert len(paths) > 60
    assert sum(path.suffix == ".wandb" for path in paths) == 2  # the job's and the sweep's
    for path in paths:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        assert b"planted" not in content, path


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


@pytest.mark.slow
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
