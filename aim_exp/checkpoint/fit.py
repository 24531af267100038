"""Whether checkpoints belong together, told from their headers before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import CheckpointError

MOST_NAMED = 3


def fit_problems(base: Checkpoint, others: Sequence[Checkpoint]) -> list[str]:
    """What keeps each of `others` from being merged with `base`: one line each."""
    found: list[str] = []
    for checkpoint in (base, *others):
        try:
            _ = checkpoint.tensors, checkpoint.config
        except CheckpointError as error:
            found.append(str(error))
            continue
        if checkpoint is not base and not found:
            problem = _misfit(base, checkpoint)
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


def _misfit(base: Checkpoint, other: Checkpoint) -> str | None:
    for key in ("model_type", "architectures"):
        if base.config.get(key) != other.config.get(key):
            return (
                f"{other.label}: {key} is {other.config.get(key)}, base's is "
                f"{base.config.get(key)}; only models of one architecture can be merged"
            )
    ours, theirs = _vocabulary(base), _vocabulary(other)
    if ours != theirs:
        return (
            f"{other.label}: its vocabulary has {theirs} rows, base's has {ours}; "
            "models must share one vocabulary, so crop or extend the expert's first"
        )
    missing = sorted(set(base.tensors) - set(other.tensors))
    unknown = sorted(set(other.tensors) - set(base.tensors))
    if missing or unknown:
        parts = [f"lacks {_some(missing)}"] if missing else []
        parts += [f"has {_some(unknown)} beyond base's"] if unknown else []
        return f"{other.label}: {' and '.join(parts)}; tensor names must be base's"
    for name, info in base.tensors.items():
        if info.shape != other.tensors[name].shape:
            return (
                f"{other.label}: tensor {name} has shape {list(other.tensors[name].shape)}, "
                f"base's has {list(info.shape)}; shapes must be base's"
            )
    return None


def _vocabulary(checkpoint: Checkpoint) -> int | None:
    size = checkpoint.config.get("vocab_size")
    return size if size is not None else checkpoint.config.get("text_config", {}).get("vocab_size")


def _some(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
