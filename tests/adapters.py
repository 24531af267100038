"""LoRA adapters as peft saves them, and the weights that they make, written down plainly."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 3,
    "rank_pattern": {},
    "alpha_pattern": {},
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "revision": None,
}


def save_adapter(
    folder: Path,
    base: dict[str, Tensor],
    modules: dict[str, int],
    *,
    whole: dict[str, Tensor] | None = None,
    seed: int = 0,
    renamed: tuple[str, str] = ("", ""),
    **settings: Any,
) -> dict[str, Tensor]:
    """Save random factors of `modules`, by rank, and whole tensors; what base becomes, float64.

    In the file the modules are called as `renamed` says: a beginning and what stands for it.
    """
    torch.manual_seed(seed)
    settings = {**LORA, **settings}
    merged, content = {name: tensor.double() for name, tensor in base.items()}, {}
    for module, rank in modules.items():
        weight = merged[f"{module}.weight"]
        embedding = module.endswith("embed_tokens")
        turned = embedding or settings["fan_in_fan_out"]
        outputs, inputs = reversed(weight.shape) if turned else weight.shape
        a, b = torch.randn(rank, inputs), torch.randn(outputs, rank) * 0.1
        alpha = settings["lora_alpha"]
        for pattern, value in settings["alpha_pattern"].items():
            alpha = value if re.search(pattern, module) else alpha
        scale = alpha / (rank**0.5 if settings["use_rslora"] else rank)
        product = scale * torch.einsum("or,ri->oi", b.double(), a.double())
        adapted = weight + (product.T if turned else product)
        name = "base_model.model." + module.replace(*renamed, 1)
        kind = ("embedding_A", "embedding_B") if embedding else ("A.weight", "B.weight")
        content |= {f"{name}.lora_{kind[0]}": a, f"{name}.lora_{kind[1]}": b}
        if settings["use_dora"]:
            magnitude = torch.rand(outputs) + 0.5
            content[f"{name}.lora_magnitude_vector"] = magnitude
            for output in range(outputs):
                row = (slice(None), output) if turned else output
                norm = adapted[row].square().sum().sqrt()
                adapted[row] = adapted[row] / norm * magnitude[output]
        merged[f"{module}.weight"] = adapted
    for name, tensor in (whole or {}).items():
        merged[name] = tensor.double()
        content[f"base_model.model.{name}"] = tensor.clone()
    folder.mkdir(parents=True)
    save_file(content, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return merged
