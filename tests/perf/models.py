"""Random models of a given size, for measuring: nothing in them means anything."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter

SEED_SHARD = 1 << 20
"""Elements drawn at once."""


def make_family(folder: Path, parameters: int, experts: int) -> list[Path]:
    """`base`, `expert0`, ...: sharded bfloat16 Llamas of about `parameters` weights; made once.

    An expert is base plus noise of 5 % of base's, about what fine-tuning changes.
    """
    config = llama_config(parameters)
    names = ["base", *(f"expert{i}" for i in range(experts))]
    for index, name in enumerate(names):
        if (folder / name).is_dir():
            continue
        template = _template(folder / "template", config)
        with CheckpointWriter(folder / name, template, "bfloat16", shard_bytes=500_000_000) as sink:
            for tensor, info in template.tensors.items():
                shared = torch.Generator().manual_seed(hash_of(tensor))
                own = torch.Generator().manual_seed(hash_of(tensor) + index)
                rows, *row_shape = info.shape
                step = max(1, SEED_SHARD // info.shape[-1]) if len(info.shape) > 1 else 1 << 30
                for start in range(0, rows, step):
                    stop = min(start + step, rows)
                    shape = (stop - start, *row_shape)
                    values = 0.02 * torch.randn(shape, generator=shared)
                    if index:
                        values += 0.001 * torch.randn(shape, generator=own)
                    sink.write(tensor, slice(start, stop), values)
    return [folder / name for name in names]


def make_many(folder: Path, count: int, experts: int) -> list[Path]:
    """The same with `count` tensors of 4096 elements, which no known model has."""
    names = ["base", *(f"expert{i}" for i in range(experts))]
    for index, name in enumerate(names):
        if (folder / name).is_dir():
            continue
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        torch.manual_seed(index)
        content = {f"layers.{i}.w.weight": torch.randn(64, 64).bfloat16() for i in range(count)}
        save_file(content, folder / name / "model.safetensors", {"format": "pt"})
    return [folder / name for name in names]


def llama_config(parameters: int) -> dict[str, object]:
    """A Llama's configuration with about `parameters` weights, wider and deeper as it grows."""
    hidden = 1536 if parameters >= 300_000_000 else 512
    intermediate, vocabulary = hidden * 8 // 3 // 64 * 64, 32_000
    per_layer = 4 * hidden**2 + 3 * hidden * intermediate + 2 * hidden
    layers = max(1, round((parameters - 2 * vocabulary * hidden) / per_layer))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def hash_of(name: str) -> int:
    """A small number that depends on the name only."""
    return sum(ord(letter) * (i + 1) for i, letter in enumerate(name))


def _template(folder: Path, config: dict[str, object]) -> Checkpoint:
    """An empty checkpoint of the architecture, with a tokenizer that fits any vocabulary."""
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    from aim_exp.population.embedded.tokenizer import BOS, EOS, PAD, train_tokenizer

    if not folder.is_dir():
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        content = {
            name: torch.zeros(1, dtype=torch.bfloat16).expand(tensor.shape).contiguous()
            for name, tensor in model.state_dict().items()
        }
        save_file(content, folder / "model.safetensors", {"format": "pt"})
        special = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(), **special)
        tokenizer.save_pretrained(folder)
    return Checkpoint(folder, "template")
