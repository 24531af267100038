"""`make check-readers`: adapters of peft's read here, ours by peft, against merge_and_unload."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from checkpoints import checkpoint, tensors
from families import SUM, TEXT

from aim_exp.checkpoint.adapter_writer import AdapterWriter
from aim_exp.checkpoint.adapters import AdaptedCheckpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge.stream import stream_merge

FOLDER = Path(__file__).parent
PYTHON = Path(os.environ["READER_ENVIRONMENTS"]) / "peft" / "bin" / "python"
UNTIED = {key: value for key, value in TEXT.items() if key != "head_dim"}
TIED = {**UNTIED, "tie_word_embeddings": True}
GPT2 = {"vocab_size": 768, "n_positions": 128, "n_embd": 24, "n_layer": 2, "n_head": 2}
LINEAR: dict[str, Any] = {"target_modules": "all-linear", "init_lora_weights": False}
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, dict[str, Any]]]] = {
    "llama": (
        hf.LlamaConfig,
        {**TEXT},
        {
            "plain": {**LINEAR, "r": 3, "lora_alpha": 5},
            "rslora": {**LINEAR, "r": 4, "lora_alpha": 2, "use_rslora": True},
            "dora": {**LINEAR, "r": 2, "use_dora": True},
            "gaussian": {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
            "patterns": {
                **LINEAR,
                "rank_pattern": {"q_proj": 5, "layers.1.mlp.up_proj": 1},
                "alpha_pattern": {r".*\.0\.mlp\..*": 11, "q_proj": 2},
            },
            "embeddings": {"target_modules": ["embed_tokens", "lm_head", "v_proj"]},
            "to_save": {"target_modules": ["o_proj"], "modules_to_save": ["embed_tokens", "norm"]},
        },
    ),
    "qwen2": (hf.Qwen2Config, UNTIED, {"biases": {**LINEAR, "bias": "all"},
                                       "lora_biases": {**LINEAR, "bias": "lora_only"}}),
    "qwen2_tied": (hf.Qwen2Config, TIED, {"head": {**LINEAR, "modules_to_save": ["lm_head"]}}),
    "gpt2": (hf.GPT2Config, GPT2, {"conv1d": {"target_modules": ["c_attn", "c_proj"], "r": 3},
                                   "dora": {"target_modules": ["c_proj"], "use_dora": True}}),
}  # fmt: skip


def merged_by_peft(folder: Path, adapters: dict[str, Any]) -> None:
    program = [PYTHON, FOLDER / "merge_peft.py", folder, json.dumps(adapters)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("family", CASES)
def test_an_adapter_is_what_peft_makes_of_it(family: str, tmp_path: Path) -> None:
    config, settings, adapters = CASES[family]
    torch.manual_seed(0)
    hf.AutoModelForCausalLM.from_config(config(**settings)).save_pretrained(tmp_path / "base")
    merged_by_peft(tmp_path, adapters)
    base = checkpoint(tmp_path, "base")
    for name in adapters:
        made = AdaptedCheckpoint(base, tmp_path / name, base.folder, name)
        theirs = tensors(tmp_path / f"{name}_merged")
        assert made.tensors.keys() <= theirs.keys()
        assert theirs.keys() - made.tensors.keys() <= {"lm_head.weight"}  # of a tied model
        changed = 0
        for tensor in made.tensors:
            ours, stored = made.tensor(tensor), base.tensors.get(tensor)
            torch.testing.assert_close(ours, theirs[tensor], rtol=1e-6, atol=1e-6)
            changed += stored is None or not ours.equal(base.tensor(tensor))
        assert changed


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft_reads_a_merge_that_is_saved_as_an_adapter(family: str, tmp_path: Path) -> None:
    config, settings, adapters = CASES[family]
    plain = {n: s for n, s in adapters.items() if n in ("plain", "embeddings", "to_save", "conv1d")}
    torch.manual_seed(0)
    hf.AutoModelForCausalLM.from_config(config(**settings)).save_pretrained(tmp_path / "base")
    merged_by_peft(tmp_path, plain)
    base = checkpoint(tmp_path, "base")
    experts = [AdaptedCheckpoint(base, tmp_path / name, base.folder, name) for name in plain]
    with CheckpointWriter(tmp_path / "expected", base, None) as whole:
        stream_merge(base, experts, SUM, whole, seed=0)
    with AdapterWriter(tmp_path / "ours", base, experts, (str(base.folder), "")) as writer:
        stream_merge(base, experts, SUM, writer, seed=0)
    merged_by_peft(tmp_path, {"ours": None})
    expected, theirs = tensors(tmp_path / "expected"), tensors(tmp_path / "ours_merged")
    for name, tensor in expected.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-5, atol=1e-5)
    assert not all(tensor.equal(base.tensor(name)) for name, tensor in expected.items())
