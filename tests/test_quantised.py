"""Models that hold no numbers to merge: quantised ones and adapters, named with what helps."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

from aim_exp.checkpoint.fit import fit_problems

Content = dict[str, Tensor]


def gptq(name: str, weight: Tensor) -> Content:
    stem, (rows, columns) = name.removesuffix("weight"), weight.shape
    packed = torch.zeros(columns // 8, rows, dtype=torch.int32)
    return {f"{stem}qweight": packed, f"{stem}qzeros": packed, f"{stem}scales": torch.ones(1, rows)}


def nf4(name: str, weight: Tensor) -> Content:
    half = torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8)
    return {name: half, f"{name}.absmax": torch.ones(3), f"{name}.quant_map": torch.ones(16)}


def fp8(name: str, weight: Tensor) -> Content:
    return {name: weight.to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(1, 1)}


KINDS: dict[str, tuple[Callable[[str, Tensor], Content], str]] = {
    "gptq": (gptq, "give the model that it was made from"),
    "awq": (gptq, "give the model that it was made from"),
    "bitsandbytes": (nf4, "model.dequantize()"),
    "fp8": (fp8, "FineGrainedFP8Config(dequantize=True)"),
}


def quantised(family: Path, folder: Path, kind: str, **config: Any) -> None:
    shutil.copytree(family / "a", folder)
    file = folder / "model.safetensors"
    content: Content = {}
    for name, tensor in load_file(file).items():
        content |= KINDS[kind][0](name, tensor) if "proj" in name else {name: tensor}
    save_file({n: t.clone() for n, t in content.items()}, file, {"format": "pt"})
    settings = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_said", [True, False])
def test_a_quantised_model_is_named_with_its_remedy(
    kind: str, is_said: bool, family: Path, tmp_path: Path
) -> None:
    said = {"quantization_config": {"quant_method": kind}} if is_said else {}
    quantised(family, tmp_path / "x", kind, **said)
    (problem,) = fit_problems(checkpoint(family, "base"), [checkpoint(tmp_path, "x")])
    assert problem.startswith(f"x: quantised by {kind if is_said else 'no known method'} (model.")
    assert (KINDS[kind][1] if is_said else "give the model that it was made from") in problem
    assert "\n" not in problem


def test_settings_of_a_quantisation_that_is_undone(family: Path, tmp_path: Path) -> None:
    shutil.copytree(family / "a", tmp_path / "x")
    path = tmp_path / "x" / "config.json"
    settings = {"quantization_config": {"quant_method": "fp8"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    (problem,) = fit_problems(checkpoint(family, "base"), [checkpoint(tmp_path, "x")])
    assert problem.endswith(f"its weights are not; take quantization_config out of {path}")


def test_an_adapter_is_no_model(family: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "adapter_config.json").write_text("{}")
    save_file({"lora": torch.ones(1)}, tmp_path / "x" / "adapter_model.safetensors")
    (problem,) = fit_problems(checkpoint(family, "base"), [checkpoint(tmp_path, "x")])
    assert problem.startswith(f"x: {tmp_path / 'x'} is an adapter, not a model; give it as an")
