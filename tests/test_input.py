"""Wrong input of every kind is answered in plain words. CI takes a sample of it.

`make check-input` sets AIM_EXP_INPUT=all: every generated line, and twenty times the damaged files.
"""

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from command_line import run_here
from conftest import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from input_lines import keys, lines, needs

from aim_exp.aim.calibration import TextFile
from aim_exp.checkpoint.files import CONFIG_FILE, INDEX_FILE, SINGLE_FILE
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import AimError
from aim_exp.evaluate.task_index import known_tasks
from aim_exp.store.run_record import FILE_NAME, read_record

ALL = os.environ.get("AIM_EXP_INPUT") == "all"
STEP = 1 if ALL else 180
EXAMPLES = 1000 if ALL else 50
RAW = ("Traceback", "debug=true", "Error executing", "object at 0x")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
DAMAGED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not ALL,
    suppress_health_check=list(HealthCheck),
)


def test_a_wrong_line_is_answered_with_key_and_fix(
    tmp_path: Path, tiny_cache: Path, tiny_population: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a text")
    (tmp_path / "pile.jsonl").write_text('{"text": "a text"}')
    meant = {
        "BASE": tiny_population / "base", "EXPERT": tiny_population / "code",
        "TEXTS": tmp_path / "texts.txt", "PILE": tmp_path / "pile.jsonl", "PYTHON": sys.executable,
    }  # fmt: skip
    every = list(lines())
    assert len(set(keys())) > 80
    assert len(every) > 2000
    tried = every[::STEP]
    for key, overrides in tried:
        extra = needs(overrides)
        for word, path in meant.items():
            extra = [option.replace(word, str(path)) for option in extra]
        quiet = ["tracker=none"] if not key.startswith("tracker") else []
        line = ["plan=true", *quiet, *overrides, *extra, f"cache_dir={tiny_cache}"]
        done = run_here(*line, cwd=tmp_path)
        assert done.returncode in (0, 1), overrides
        if done.returncode:
            assert len(done.stderr.splitlines()) < 12, (overrides, done.stderr)
            if "evaluator=vllm" not in overrides:  # which is not installed here
                assert key.rpartition(".")[2] in done.stderr, (overrides, done.stderr)
        assert not any(word in done.stderr for word in RAW), (overrides, done.stderr)
    assert {path.name for path in tmp_path.iterdir()} <= {"texts.txt", "pile.jsonl"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("omega=inf", "omega=inf: must be in [0, 1]"),
        ("threads=-1", "threads=-1: must be at least 1"),
        ("~omega", "omega: has no value; set omega="),
        ("~method", "method: has no value; set method="),
        ("vocabulary=???", "vocabulary: has no value"),
        ("cache_dir=''", "cache_dir=: must be a folder"),
        ("method.density=nan", "method.density=nan: must be in (0, 1]"),
        ("method.weight=1e308", "method.weight=1e+308: must be in"),
        ("population.merge=[1,[2]]", ": no expert is called [2]; there are code, instruct, math"),
        (
            "population.chat_template={a: {b: []}}",
            "population.chat_template={'b': []}: there is no",
        ),
        ("aim.exclude=[1,[2]]", "aim.exclude=['1', [2]]: must be a list of patterns"),
        ("aim.exclude=${omega}${seed}", "aim.exclude=${omega}${seed}: cannot be resolved"),
        ("population.references=-1", "population.references=-1: must be a table"),
        ("population.seed=${omega}${seed}", "population.seed=${omega}${seed}: cannot be resolved"),
    ],
)
def test_a_job_that_began_records_why_it_failed(
    tmp_path: Path, tiny_cache: Path, override: str, words: str
) -> None:
    cache = [] if "cache_dir" in override else [f"cache_dir={tiny_cache}"]
    done = run_here(override, "tracker=none", *cache, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    record = json.loads((tmp_path / "run" / FILE_NAME).read_text())
    assert record["status"] == "failed"
    assert words in " ".join(record["error"].split())
    assert {path.name for path in (tmp_path / "run").iterdir()} == {FILE_NAME, ".hydra", "run.log"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["population=1"], "population=1: must name an option; there are custom"),
        (["omega=${nothing}"], "omega=${nothing}: cannot be resolved"),
        (["method.weight={1: 0.5, true: 0.5}"], "is given twice; name it once"),
        (["-m", "seed=range(0,1,0)"], "seed=range(0,1,0): range() arg 3 must not be zero"),
    ],
)
def test_what_cannot_be_composed(cli: Cli, line: list[str], words: str) -> None:
    done = cli(*line, "tracker=none")
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert "debug=true" not in done.stderr


def test_plan_true_plans_however_it_is_written(cli: Cli, tmp_path: Path) -> None:
    for written in ("plan=true", "plan=True", "++plan=true"):
        assert cli(written, "tracker=none").returncode == 0, written
        assert not (tmp_path / "outputs").exists(), written


def plain_or_fine(read: Callable[[], Any]) -> None:
    """What `read` raises, if it does, is one of ours, in a few lines that name the file."""
    try:
        read()
    except AimError as error:
        text = str(error)
        assert 0 < len(text.splitlines()) < 6
        assert "Error(" not in text


@DAMAGED
@given(header=JSON, length=st.none() | st.integers(0, 2**64 - 1), tail=st.binary(max_size=64))
def test_damaged_headers(header: Any, length: int | None, tail: bytes) -> None:
    text = json.dumps(header).encode()
    with TemporaryDirectory() as folder:
        count = len(text) if length is None else length
        (Path(folder) / SINGLE_FILE).write_bytes(struct.pack("<Q", count) + text + tail)
        plain_or_fine(lambda: dict(Checkpoint(Path(folder), "base").tensors))


@DAMAGED
@given(index=JSON | st.fixed_dictionaries({"weight_map": JSON}))
def test_damaged_indices(index: Any) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / INDEX_FILE).write_text(json.dumps(index))
        plain_or_fine(lambda: dict(Checkpoint(Path(folder), "base").tensors))


@DAMAGED
@given(config=JSON | st.fixed_dictionaries({"text_config": JSON, "tie_word_embeddings": JSON}))
def test_damaged_configurations(config: Any) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / CONFIG_FILE).write_text(json.dumps(config))
        plain_or_fine(lambda: Checkpoint(Path(folder), "base").text_config)


@DAMAGED
@given(
    record=JSON | st.dictionaries(st.sampled_from(["schema_version", "status", "config", "models",
                                                   "omega", "choices", "timings"]), JSON)
)  # fmt: skip
def test_odd_records(record: Any) -> None:
    if isinstance(record, dict) and "schema_version" in record:
        record["schema_version"] = 2
    with TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_text(json.dumps(record))
        plain_or_fine(lambda: read_record(Path(folder)))


@DAMAGED
@given(content=st.binary(max_size=200), kind=st.sampled_from(["txt", "jsonl", "parquet"]))
def test_odd_texts(content: bytes, kind: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"texts.{kind}"
        path.write_bytes(content)
        texts = TextFile(
            path=str(path), n_samples=1, block_size=8, seed=0, add_special_tokens=False,
            long_texts="split", skip_positions=0, offload="none", per_expert=None,
        )  # fmt: skip
        assert all(len(problem.splitlines()) == 1 for problem in texts.problems())


@DAMAGED
@given(task=JSON | st.fixed_dictionaries({"task": JSON, "dataset_path": JSON, "include": JSON}))
def test_odd_task_files(task: Any) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "odd.yaml"
        path.write_text(yaml.safe_dump(task))
        plain_or_fine(lambda: known_tasks(Path(folder), str(path)))
