"""Whether checkpoints belong together, told from their headers before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.vocabulary import EMBEDDINGS, differs, embedding_rows, vocabulary
from aim_exp.errors import CheckpointError

MOST_NAMED = 3
DERIVED = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""How the names of buffers end that old files hold and transformers makes anew."""


def fit_problems(base: Checkpoint, others: Sequence[Checkpoint], rule: str = "union") -> list[str]:
    """What keeps each of `others` from being merged with `base`: one line each.

    `rule` says what becomes of vocabularies that differ.
    """
    found: list[str] = []
    for checkpoint in (base, *others):
        try:
            _ = checkpoint.tensors, checkpoint.config, embedding_rows(checkpoint)
        except CheckpointError as error:
            found.append(str(error))
            continue
        if checkpoint is not base and not found:
            problem = _misfit(base, checkpoint, rule)
            found += [problem] if problem else []
    return found


def dtype_warnings(base: Checkpoint, experts: Sequence[Checkpoint]) -> list[str]:
    """A warning where base and an expert are stored in different dtypes."""
    return [
        f"{expert.label} is stored in {expert.dtype}, base in {base.dtype}: base's rounding "
        "error enters every task vector with the same sign"
        for expert in experts
        if expert.dtype != base.dtype
    ]


def _misfit(base: Checkpoint, other: Checkpoint, rule: str) -> str | None:
    for key in ("model_type", "architectures"):
        if base.config.get(key) != other.config.get(key):
            return (
                f"{other.label}: {key} is {other.config.get(key)}, base's is "
                f"{base.config.get(key)}; only models of one architecture can be merged"
            )
    missing = sorted(set(base.tensors) - set(other.tensors))
    extra = set(other.tensors) - set(base.tensors)
    unknown = sorted(name for name in extra if not name.endswith(DERIVED))
    if missing or unknown:
        parts = [f"lacks {_some(missing)}"] if missing else []
        parts += [f"has {_some(unknown)} beyond base's"] if unknown else []
        return f"{other.label}: {' and '.join(parts)}; tensor names must be base's"
    for name, info in base.tensors.items():
        shape = other.tensors[name].shape
        free = 1 if name.endswith(EMBEDDINGS) else 0  # a vocabulary's rows may differ
        if info.shape[free:] != shape[free:]:
            return (
                f"{other.label}: tensor {name} has shape {list(shape)}, base's has "
                f"{list(info.shape)}; shapes must be base's"
            )
    try:
        if differs(base, other):
            vocabulary(rule, base, [other])
    except CheckpointError as error:
        return str(error)
    return None


def _some(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
