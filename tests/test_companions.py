"""An expert is scored as it is: with its own settings and tokenizer where they are not base's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from built_runs import built
from conftest import Cli

from aim_exp.checkpoint.companions import config_warnings, differ
from aim_exp.checkpoint.reader import Checkpoint


def changed(
    source: Path, target: Path, file: str, change: Callable[[dict[str, Any]], None]
) -> Path:
    """A copy of a model with another JSON file beside its weights."""
    shutil.copytree(source, target)
    content = json.loads((target / file).read_text())
    change(content)
    (target / file).write_text(json.dumps(content))
    return target


CHANGES = [
    ("config.json", {"rms_norm_eps": 0.1}, True),
    ("config.json", {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, True),
    ("generation_config.json", {"eos_token_id": [2, 5]}, True),
    ("tokenizer_config.json", {"eos_token": "<pad>"}, True),
    ("config.json", {"transformers_version": "4.0", "dtype": "float32", "use_cache": False}, False),
    ("generation_config.json", {"transformers_version": "4.0"}, False),
]


@pytest.mark.parametrize(("file", "settings", "unlike"), CHANGES)
def test_what_makes_a_model_unlike_base(
    file: str, settings: dict[str, Any], unlike: bool, family: Path, tmp_path: Path
) -> None:
    other = changed(family / "a", tmp_path / "a", file, lambda content: content.update(settings))
    assert differ(Checkpoint(family / "base", "base"), Checkpoint(other, "a")) == unlike


def test_an_expert_is_scored_with_its_own_settings(cli: Cli, family: Path, tmp_path: Path) -> None:
    """The answers of an expert are those of the same folder as a reference."""
    expert = changed(
        family / "a", tmp_path / "a", "config.json", lambda config: config.update(rms_norm_eps=0.1)
    )
    overrides = (
        "population=custom", f"population.base={family / 'base'}",
        f"population.experts={{a: {expert}, b: {family / 'b'}}}",
        f"population.references={{same: {expert}, plain: {family / 'a'}}}",
        "method=linear", "omega=null", "tracker=none", "benchmarks.limit=4",
    )  # fmt: skip
    assert built(tmp_path, *overrides).recipe.own_companions == {"a"}
    done = cli(*overrides, "hydra.run.dir=run", cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    answers = {
        name: Path(files["tiny_mmlu"]).read_text() for name, files in record["items"].items()
    }
    assert answers["a"] == answers["same"] != answers["plain"]
    assert "a: rms_norm_eps is 0.1, base's is 1e-06; the merge has base's" in record["warnings"]
    assert any(
        text.startswith("benchmarks=tiny: these are toy tasks") for text in record["warnings"]
    )


def test_tokens_are_not_warned_of(family: Path, tmp_path: Path) -> None:
    """A vocabulary is merged by its own rule, which says so itself."""
    other = changed(
        family / "a", tmp_path / "a", "config.json", lambda config: config.update(eos_token_id=7)
    )
    assert config_warnings(Checkpoint(family / "base", "base"), [Checkpoint(other, "a")]) == []


def test_a_tied_head_that_is_stored_counts_as_the_embedding(family: Path, tmp_path: Path) -> None:
    """Some files hold it, others of the same family do not."""
    tied = changed(
        family / "a", tmp_path / "a", "config.json",
        lambda config: config.update(tie_word_embeddings=True),
    )  # fmt: skip
    assert "lm_head.weight" in Checkpoint(family / "a", "a").tensors
    assert "lm_head.weight" not in Checkpoint(tied, "a").tensors
