"""Whether checkpoints belong together, told from their headers before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from aim_exp.checkpoint.matching import head_problem, matched
from aim_exp.checkpoint.names import EMBEDDINGS
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.vocabulary import differs, embedding_rows, vocabulary
from aim_exp.errors import CheckpointError


def fit_problems(base: Checkpoint, others: Sequence[Checkpoint], rule: str = "union") -> list[str]:
    """What keeps each of `others` from being merged with `base`: one line each.

    `rule` says what becomes of vocabularies that differ.
    """
    found: list[str] = []
    for checkpoint in (base, *others):
        try:
            _ = checkpoint.tensors, checkpoint.config, embedding_rows(checkpoint)
            problem = head_problem(checkpoint)
            if not problem and checkpoint is not base and not found:
                problem = _misfit(base, checkpoint, rule)
        except CheckpointError as error:
            problem = str(error)
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
    """Raises CheckpointError where names or vocabularies do not fit."""
    for key in ("model_type", "architectures"):
        if base.config.get(key) != other.config.get(key):
            return (
                f"{other.label}: {key} is {other.config.get(key)}, base's is "
                f"{base.config.get(key)}; only models of one architecture can be merged"
            )
    base, (other,) = matched(base, [other])
    for name, info in base.tensors.items():
        theirs = other.tensors[name]
        free = 1 if name.endswith(EMBEDDINGS) else 0  # a vocabulary's rows may differ
        if info.shape[free:] != theirs.shape[free:]:
            return (
                f"{other.label}: tensor {name} has shape {list(theirs.shape)}, base's has "
                f"{list(info.shape)}; shapes must be base's"
            )
        if info.is_floating != theirs.is_floating:
            return (
                f"{other.label}: tensor {name} holds {theirs.dtype}, base's {info.dtype}: integers "
                "are no weights; if they are quantised, dequantise the model first"
            )
    if differs(base, other):
        vocabulary(rule, base, [other])
    return None
