"""`make check-readers`: adapters that peft made, read here, against peft's merge_and_unload."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from checkpoints import checkpoint, tensors
from families import TEXT

from aim_exp.checkpoint.adapters import AdaptedCheckpoint

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


@pytest.mark.parametrize("family", CASES)
def test_an_adapter_is_what_peft_makes_of_it(family: str, tmp_path: Path) -> None:
    config, settings, adapters = CASES[family]
    torch.manual_seed(0)
    hf.AutoModelForCausalLM.from_config(config(**settings)).save_pretrained(tmp_path / "base")
    program = [PYTHON, FOLDER / "merge_peft.py", tmp_path, json.dumps(adapters)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
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
