"""What a tensor's name says: which kind of module it belongs to, which layer, what wrapped it."""

INPUT_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight",
                    "word_embeddings.weight")  # fmt: skip
HEADS = ("lm_head.weight", "embed_out.weight")
EMBEDDINGS = (*INPUT_EMBEDDINGS, *HEADS, "lm_head.bias")
"""How the names of tensors with a row for each token end."""
WRAPPERS = {"_orig_mod": "torch.compile", "_fsdp_wrapped_module": "FSDP",
            "_checkpoint_wrapped_module": "activation checkpointing"}  # fmt: skip
"""What training puts round modules, by the part of a name that it leaves behind."""
OUTERMOST = "module"
"""What DataParallel and DeepSpeed leave, before a name only."""


def kind_of(name: str) -> str:
    """The kind of module: of `model.layers.3.mlp.up_proj.weight` it is `up_proj`."""
    parts = [part for part in name.split(".") if not part.isdigit()]
    return parts[-2] if len(parts) > 1 else parts[-1]


def layer_of(name: str) -> int | None:
    """The layer's number, the first one in the name; None for what is in no layer."""
    return place_in_depth(name)[1]


def place_in_depth(name: str) -> tuple[str, int | None]:
    """A stack of layers and the number there, `model.layers` and 3; or the name and None."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[:i]), int(part)
    return name, None


def unwrapped(name: str) -> str:
    """The name without what wrappers have put into it: `_orig_mod.model.x` is `model.x`."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    while parts[:1] == [OUTERMOST]:
        del parts[0]
    return ".".join(parts)
