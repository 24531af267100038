"""`make check-readers`: saved merges of five families, read by others. Not a part of `make test`.

Each reader is a program in an environment of its own, which has none of our code.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from checkpoints import checkpoint
from families import SUM, TEXT

from aim_exp.checkpoint.matching import matched
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge.stream import stream_merge

FOLDER = Path(__file__).parent
ENVIRONMENTS = Path(os.environ["READER_ENVIRONMENTS"])
READERS = os.environ["READERS"].split()
WIDE: dict[str, Any] = {**TEXT, "hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
"""No smaller head will do for vLLM."""
PLAIN = {key: value for key, value in WIDE.items() if key != "head_dim"}
CONFIGS = {
    "llama": lambda: hf.LlamaConfig(**WIDE),
    "qwen2_tied": lambda: hf.Qwen2Config(**{**PLAIN, "tie_word_embeddings": True}),
    "gemma2": lambda: hf.Gemma2Config(**{**WIDE, "tie_word_embeddings": True}),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=768,
        n_positions=128,
        n_embd=128,
        n_layer=2,
        n_head=4,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "mixtral": lambda: hf.MixtralConfig(**WIDE, num_local_experts=4, num_experts_per_tok=2),
}


def save_tokenizer(source: Path, folder: Path) -> None:
    """As transformers 4 wrote it: 5 calls the class by a name that others do not know."""
    hf.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings))


@pytest.fixture(scope="session")
def merges(tmp_path_factory: pytest.TempPathFactory, tiny_population: Path) -> list[Path]:
    folders = []
    for kind, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp(kind)
        for seed, name in enumerate(("base", "a", "b")):
            torch.manual_seed(seed)
            hf.AutoModelForCausalLM.from_config(config()).save_pretrained(folder / name)
            save_tokenizer(tiny_population / "base", folder / name)
        base, experts = matched(
            checkpoint(folder, "base"), [checkpoint(folder, "a"), checkpoint(folder, "b")]
        )
        with CheckpointWriter(folder / kind, base, None) as writer:
            stream_merge(base, experts, SUM, writer, seed=0)
        folders.append(folder / kind)
    return folders


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_takes_every_merge(reader: str, merges: list[Path]) -> None:
    assert len(merges) == 5
    program = [ENVIRONMENTS / reader / "bin" / "python", FOLDER / f"read_{reader}.py"]
    for merge in merges:
        done = subprocess.run([*program, merge], capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{merge.name}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        assert f"read {merge}" in done.stdout
