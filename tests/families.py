"""Seventeen families of models: tiny configs, and checkpoints in the names of the hub's files."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from checkpoints import tensors
from safetensors.torch import save_file
from torch import Tensor

from aim_exp.aim.measure import measure
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.live import LiveModel
from aim_exp.merge import TaskArithmetic

SUM = TaskArithmetic(weight=1.0, scale=1.0)
OMEGA = 0.3

TEXT: dict[str, Any] = {
    "vocab_size": 768,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
NO_HEAD_DIM: dict[str, Any] = {key: value for key, value in TEXT.items() if key != "head_dim"}
MLA: dict[str, Any] = {**NO_HEAD_DIM, "num_key_value_heads": 4}
MROPE: dict[str, Any] = {
    **NO_HEAD_DIM,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 1]},
}
QWEN_IDS: dict[str, Any] = {
    "image_token_id": 760,
    "video_token_id": 761,
    "vision_start_token_id": 762,
}
GEMMA: dict[str, Any] = {
    **TEXT,
    "query_pre_attn_scalar": 6,
    "tie_word_embeddings": True,
    "sliding_window": 16,
}
SIGLIP: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@dataclass(frozen=True)
class Family:
    """A tiny config, how many of its tensors AIM relaxes, and how many there are.

    `hub_name` is what the hub's files call a tensor that transformers saves as given.
    """

    config: Callable[[], hf.PretrainedConfig]
    relaxed: int
    tensors: int
    hub_name: Callable[[str], str] = lambda name: name


def gpt2_name(name: str) -> str:
    return name.removeprefix("transformer.")


def qwen_vl_name(name: str) -> str:
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def llava_name(name: str) -> str:
    for old, new in {
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


FAMILIES = {
    "llama": Family(lambda: hf.LlamaConfig(**TEXT), 20, 21),
    "llama_tied": Family(lambda: hf.LlamaConfig(**{**TEXT, "tie_word_embeddings": True}), 19, 20),
    "mistral": Family(lambda: hf.MistralConfig(**TEXT, sliding_window=16), 20, 21),
    "qwen2": Family(lambda: hf.Qwen2Config(**NO_HEAD_DIM), 20, 27),
    "qwen3": Family(lambda: hf.Qwen3Config(**TEXT), 24, 25),
    "gemma2": Family(lambda: hf.Gemma2Config(**GEMMA), 23, 24),
    "gemma3_text": Family(lambda: hf.Gemma3TextConfig(**GEMMA), 27, 28),
    "gemma3": Family(
        lambda: hf.Gemma3Config(
            text_config=GEMMA, vision_config=SIGLIP, mm_tokens_per_image=4, image_token_index=760
        ),
        27,
        62,
        llava_name,
    ),
    "phi3": Family(lambda: hf.Phi3Config(**NO_HEAD_DIM), 14, 15),
    "olmo2": Family(lambda: hf.Olmo2Config(**NO_HEAD_DIM), 24, 25),
    "gpt2": Family(
        lambda: hf.GPT2Config(vocab_size=768, n_positions=128, n_embd=24, n_layer=2, n_head=2),
        13,
        28,
        gpt2_name,
    ),
    "qwen2_vl": Family(
        lambda: hf.Qwen2VLConfig(
            text_config=MROPE,
            vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 24, "num_heads": 2},
            **QWEN_IDS,
        ),
        20,
        46,
        qwen_vl_name,
    ),
    "qwen2_5_vl": Family(
        lambda: hf.Qwen2_5_VLConfig(
            text_config=MROPE,
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_heads": 2,
                "out_hidden_size": 24,
                "fullatt_block_indexes": [0],
            },
            **QWEN_IDS,
        ),
        20,
        45,
        qwen_vl_name,
    ),
    "llava": Family(
        lambda: hf.LlavaConfig(
            text_config=hf.LlamaConfig(**TEXT),
            vision_config=hf.CLIPVisionConfig(**{**SIGLIP, "num_hidden_layers": 2}),
            image_token_index=760,
        ),
        20,
        64,
        llava_name,
    ),
    "qwen3_moe": Family(
        lambda: hf.Qwen3MoeConfig(
            **TEXT, moe_intermediate_size=20, num_experts=4, num_experts_per_tok=2
        ),
        44,
        45,
    ),
    "mixtral": Family(
        lambda: hf.MixtralConfig(**TEXT, num_local_experts=4, num_experts_per_tok=2), 40, 41
    ),
    "deepseek_v3": Family(
        lambda: hf.DeepseekV3Config(
            **MLA,
            moe_intermediate_size=20,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_nope_head_dim=4,
            qk_rope_head_dim=4,
            v_head_dim=6,
        ),
        39,
        41,
    ),
}


def save_family(kind: str, folder: Path, tokenizer: Path) -> None:
    """`base`, `a` and `b`, float32, in the names of the hub's files."""
    family = FAMILIES[kind]
    for index, name in enumerate(("base", "a", "b")):
        config = family.config()
        torch.manual_seed(3)
        is_text = config.model_type not in ("gemma3", "llava", "qwen2_vl", "qwen2_5_vl")
        auto: Any = hf.AutoModelForCausalLM if is_text else hf.AutoModelForImageTextToText
        model = auto.from_config(config)
        torch.manual_seed(index)
        for parameter in model.parameters():
            # Weights that are born as zeros or ones tell nothing.
            parameter.data += (0.02 if index else 0.0) * torch.randn_like(parameter)
            if not index and parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder / name)
        content = tensors(folder / name)
        (folder / name / "model.safetensors").unlink()
        renamed = {family.hub_name(key): value for key, value in content.items()}
        assert len(renamed) == len(content)
        save_file(renamed, folder / name / "model.safetensors", {"format": "pt"})
        for path in tokenizer.glob("*token*"):
            shutil.copy(path, folder / name)


def text_blocks() -> Tensor:
    return torch.randint(3, 700, (3, 32), generator=torch.Generator().manual_seed(0))


def saliency_of(live: LiveModel) -> Saliency:
    return measure(live.model, text_blocks(), lambda n: None).on_checkpoint(live.places)


def run_blocks(live: LiveModel, blocks: Tensor) -> None:
    with torch.no_grad():
        for block in blocks:
            live.model(input_ids=block[None])
