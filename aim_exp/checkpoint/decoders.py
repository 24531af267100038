"""The tensors of the commonest decoders, told by their configuration: nothing is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aim_exp.checkpoint.reader import TIED, Checkpoint

BIASED = {"llama": (), "mistral": (), "qwen2": ("q_proj", "k_proj", "v_proj")}
"""By `model_type`, the projections with a bias."""


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether the tensors are, by name and shape, all floats that the configuration asks for.

    False also where that is not known here; `matching.name_problem` then tells it, at the price of
    importing transformers' models.
    """
    stored = {name: info.shape for name, info in checkpoint.tensors.items() if info.is_floating}
    if len(stored) < len(checkpoint.tensors):
        return False
    try:
        there = all(stored.pop(name, None) == shape for name, shape in _shapes(checkpoint.config))
        return there and not stored
    except (KeyError, TypeError, ArithmeticError):
        return False


def _shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Raises KeyError for a configuration of another kind."""
    biased = BIASED[config["model_type"]]
    hidden, inner, heads = (
        config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")
    )
    width = config.get("head_dim") or hidden // heads
    queries, keys = heads * width, config["num_key_value_heads"] * width
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise KeyError("biases")
    matrices = {
        "self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    for number in range(config["num_hidden_layers"]):
        for name, shape in matrices.items():
            module = f"model.layers.{number}.{name}"
            yield f"{module}.weight", shape
            if name.endswith(biased):
                yield f"{module}.bias", shape[:1]
    yield "model.norm.weight", (hidden,)
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    if config.get(TIED) is not True:
        yield "lm_head.weight", (config["vocab_size"], hidden)
