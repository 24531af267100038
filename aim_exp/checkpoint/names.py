"""What a tensor's name says: which kind of module it belongs to, and which layer."""

from __future__ import annotations


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
