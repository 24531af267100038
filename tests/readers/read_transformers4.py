"""In an environment with transformers 4: load each folder given; fails at the first bad key."""

import sys

import torch
import transformers

assert transformers.__version__.startswith("4."), transformers.__version__
transformers.logging.set_verbosity_error()
for folder in sys.argv[1:]:
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    bad = {key: sorted(map(str, loading[key])) for key in ("missing_keys", "unexpected_keys")}
    assert not any(bad.values()), (folder, bad)
    transformers.AutoTokenizer.from_pretrained(folder)
    assert torch.isfinite(model(input_ids=torch.arange(3, 20)[None]).logits).all(), folder
    print("read", folder)
