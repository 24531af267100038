"""One set of tensors for the models of a merge: names, buffers, and output heads.

Names are base's. Where those of another model differ, it is the place in transformers' model that
says which tensor is which. Where one model has an output head of its own, all have: that of a
model which shares the two is its embedding.
"""

from collections.abc import Sequence
from pathlib import Path

from aim_exp.checkpoint.layouts import Layout, layout
from aim_exp.checkpoint.names import WRAPPERS, unwrapped
from aim_exp.checkpoint.reader import TIED, Checkpoint, RenamedCheckpoint
from aim_exp.errors import CheckpointError

MOST_NAMED = 3


def matched(
    base: Checkpoint, others: Sequence[Checkpoint], memo: Path | None = None
) -> tuple[Checkpoint, list[Checkpoint]]:
    """Base and the others with the same tensor names. Raises CheckpointError naming what differs.

    Models whose names are equal, but for the head, are taken as they are: no code is imported. Of
    the others the places are looked up (`layouts.layout`, which explains `memo`).
    """
    names = _but_head(base)
    if any(_but_head(other) != names for other in others):
        here = _layout(base, memo)
        buffers = here.ignored if here else ()  # that its files hold
        base = RenamedCheckpoint(base, {name: name for name in base.tensors if name not in buffers})
        others = [_named_as(base, other, memo) for other in others]
    head = next((model.head for model in (base, *others) if model.head), None)
    if head is None:
        return base, list(others)
    return with_head(base, head), [with_head(other, head) for other in others]


def name_problem(checkpoint: Checkpoint, memo: Path | None = None) -> str | None:
    """What tensor has no place in the checkpoint's model, or parameter no tensor of its kind.

    Raises CheckpointError where transformers cannot build the model.
    """
    here = layout(checkpoint, memo)
    if prefix := _prefix(here.stray, here.absent):
        return f"{checkpoint.label}: {_prefixed(checkpoint, prefix)}"
    parts = [f"lacks {some(here.absent)}"] if here.absent else []
    parts += [f"has {some(here.stray)}, which have no place in it"] if here.stray else []
    parts += [
        f"has {name} of shape {list(checkpoint.tensors[name].shape)}, which should be {shape}"
        for name, shape in [*here.unlike.items()][:1]
    ]
    whole = [name for name in here.places if not checkpoint.tensors[name].is_floating]
    if quantised := [name for name in whole if name not in here.integers]:
        parts.append(f"holds integers in {some(quantised)}")
    if not parts:
        return None
    model = checkpoint.config.get("architectures") or checkpoint.config.get("model_type")
    kind = ", ".join(model) if isinstance(model, list) else model
    return f"{checkpoint.label}: as {kind} it {' and '.join(parts)}; mend {checkpoint.folder}"


def head_problem(checkpoint: Checkpoint) -> str | None:
    """A model that says it has an output head of its own, and stores none."""
    if checkpoint.config.get(TIED) is not False or checkpoint.head or not checkpoint.embedding:
        return None
    return (
        f"{checkpoint.label}: holds no output head, and its {TIED} is false; if it has none, say "
        f"true in {checkpoint.folder}/config.json"
    )


def wrapper_warnings(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Which models' names hold what training has wrapped round them."""
    warnings = []
    for checkpoint in checkpoints:
        stored = {
            info.stored
            for name, info in checkpoint.tensors.items()
            if unwrapped(info.stored) == name != info.stored
        }
        if stored:
            parts = {part for name in stored for part in name.split(".") if part in WRAPPERS}
            words = ", ".join(sorted(parts)) or "module"
            example = min(stored)
            warnings.append(
                f"{checkpoint.label}: {words} came off the names of {len(stored)} tensors "
                f"({example} is {unwrapped(example)})"
            )
    return warnings


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _but_head(checkpoint: Checkpoint) -> set[str]:
    return set(checkpoint.tensors) - {checkpoint.head}


def _named_as(base: Checkpoint, other: Checkpoint, memo: Path | None) -> Checkpoint:
    """The other model in base's names, by their places. Raises CheckpointError."""
    own = {name: name for name in other.tensors}
    there, here = _layout(base, memo), _layout(other, memo)
    if there and here:
        names = {place: name for name, place in there.places.items()}
        own = {name: name for name in here.stray}
        own |= {names.get(place, name): name for name, place in here.places.items()}
    heads = {base.head, other.head}
    missing = sorted(base.tensors.keys() - own.keys() - heads)
    unknown = sorted(own.keys() - base.tensors.keys() - heads)
    if prefix := _prefix(unknown, missing):
        raise CheckpointError(f"{other.label}: {_prefixed(other, prefix)}")
    if missing or unknown:
        parts = [f"lacks {some(missing)}"] if missing else []
        parts += [f"has {some(unknown)} beyond base's"] if unknown else []
        raise CheckpointError(f"{other.label}: {' and '.join(parts)}; the tensors must be base's")
    order = [*base.tensors, *(own.keys() - base.tensors.keys())]
    return RenamedCheckpoint(other, {name: own[name] for name in order if name in own})


def _prefix(names: Sequence[str], wanted: Sequence[str]) -> str:
    """What stands before each of `wanted` in `names`; nothing where that is not all."""
    first = next((name for name in names if name.endswith(tuple(f".{w}" for w in wanted))), "")
    ends = [name for name in wanted if first.endswith(f".{name}")]
    prefix = first.removesuffix(max(ends, key=len)) if ends else ""
    return prefix if {f"{prefix}{name}" for name in wanted} == set(names) else ""


def _prefixed(checkpoint: Checkpoint, prefix: str) -> str:
    return (
        f"{prefix} stands before its tensors' names; save the model without what wraps it, or take "
        f"that off the names in {checkpoint.folder}"
    )


def _layout(checkpoint: Checkpoint, memo: Path | None) -> Layout | None:
    """None where transformers cannot build the model: then it is the names alone that count."""
    try:
        return layout(checkpoint, memo)
    except CheckpointError:
        return None


def with_head(checkpoint: Checkpoint, head: str) -> Checkpoint:
    """The model with an output head called `head`: its own, or its embedding."""
    source = checkpoint.head or checkpoint.embedding
    if checkpoint.head == head or source is None:
        return checkpoint
    rest = {name: name for name in checkpoint.tensors if name != checkpoint.head}
    return RenamedCheckpoint(checkpoint, {**rest, head: source})
