"""In an environment with peft: adapters of the model in a folder, and what peft makes of each.

FOLDER holds `base`; NAME and NAME_merged are written beside it for each settings in the JSON given,
NAME_merged alone where they are null and the adapter is there.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

transformers.logging.set_verbosity_error()


def base(folder: Path):
    auto = transformers.AutoModelForCausalLM
    return auto.from_pretrained(folder / "base", dtype=torch.float32).eval()


folder = Path(sys.argv[1])
for name, settings in json.loads(sys.argv[2]).items():
    if settings is not None:
        torch.manual_seed(len(name))
        adapted = get_peft_model(base(folder), LoraConfig(**settings))
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
        adapted.save_pretrained(folder / name)
    again = PeftModel.from_pretrained(base(folder), folder / name)
    merged = again.merge_and_unload().state_dict()
    (folder / f"{name}_merged").mkdir()
    content = {key: tensor.clone() for key, tensor in merged.items()}
    save_file(content, folder / f"{name}_merged" / "model.safetensors")
    print("merged", name)
