"""In an environment with peft: put an adapter on each folder given, and load it again."""

import sys
from tempfile import TemporaryDirectory

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

transformers.logging.set_verbosity_error()


def loaded(folder: str):
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    bad = {key: sorted(map(str, loading[key])) for key in ("missing_keys", "unexpected_keys")}
    assert not any(bad.values()), (folder, bad)
    return model.eval()


for folder in sys.argv[1:]:
    ids = torch.arange(3, 20)[None]
    with TemporaryDirectory() as scratch, torch.no_grad():
        settings = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        adapted = get_peft_model(loaded(folder), settings).eval()
        expected = adapted(input_ids=ids).logits
        adapted.save_pretrained(scratch)
        again = PeftModel.from_pretrained(loaded(folder), scratch).eval()
        assert torch.equal(again(input_ids=ids).logits, expected), folder
    print("read", folder)
