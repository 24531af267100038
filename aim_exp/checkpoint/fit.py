"""Whether checkpoints belong together, told from their headers before any work is done."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from aim_exp.checkpoint.matching import head_problem, matched, name_problem
from aim_exp.checkpoint.names import EMBEDDINGS
from aim_exp.checkpoint.quantised import quantisation_problem
from aim_exp.checkpoint.reader import Checkpoint, equal_values
from aim_exp.checkpoint.vocabulary import differs, embedding_rows, vocabulary
from aim_exp.errors import CheckpointError


def fit_problems(
    base: Checkpoint, others: Sequence[Checkpoint], rule: str = "union", memo: Path | None = None
) -> list[str]:
    """What keeps each of `others` from being merged with `base`: one line each.

    `rule` says what becomes of vocabularies that differ; `memo` remembers layouts.
    """
    problems: list[str] = []
    for checkpoint in (base, *others):
        try:
            problem = quantisation_problem(checkpoint) or head_problem(checkpoint)
            _ = embedding_rows(checkpoint) if not problem else None
            if not problem and checkpoint is not base and not problems:
                problem = _misfit(base, checkpoint, rule, memo)
        except CheckpointError as error:
            problem = str(error)
        problems += [problem] if problem else []
    return problems


def loading_problem(checkpoint: Checkpoint, memo: Path | None = None) -> str | None:
    """What keeps transformers from running the model, told without its weights."""
    from aim_exp.checkpoint.modules import generation_config

    if "auto_map" in checkpoint.config:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        if checkpoint.config.get("model_type") not in CONFIG_MAPPING:
            return (
                f"{checkpoint.label}: its architecture is code in {checkpoint.folder} (auto_map in "
                "config.json), which is never run; only a merge without activations and scores is "
                "possible: omega=null benchmarks=none save_model=true"
            )
    try:
        generation_config(checkpoint)
        return name_problem(checkpoint, memo)
    except CheckpointError as error:
        return str(error)


def dtype_warnings(base: Checkpoint, experts: Sequence[Checkpoint]) -> list[str]:
    """A warning where base and an expert are stored in different dtypes."""
    return [
        f"{expert.label} is stored in {expert.dtype}, base in {base.dtype}: base's rounding "
        "error enters every task vector with the same sign"
        for expert in experts
        if expert.dtype != base.dtype
    ]


def equality_warnings(
    base: Checkpoint, others: Sequence[Checkpoint], memo: Path | None = None
) -> list[str]:
    """A warning for each model with the weights of another; read up to the first difference."""
    first, rest = matched(base, others, memo)
    return [
        f"{other.label}: its weights are those of {one.label}; is {other.folder} the right folder?"
        for one, other in combinations((first, *rest), 2)
        if all(equal_values(info, other.tensors[name]) for name, info in one.tensors.items())
    ]


def _misfit(base: Checkpoint, other: Checkpoint, rule: str, memo: Path | None) -> str | None:
    """Raises CheckpointError where names or vocabularies do not fit."""
    key = "model_type"  # by which the class is chosen; the rest of an architecture is its tensors
    if base.config.get(key) != other.config.get(key):
        return (
            f"{other.label}: {key} is {other.config.get(key)}, base's is "
            f"{base.config.get(key)}; only models of one architecture can be merged"
        )
    base, (other,) = matched(base, [other], memo)
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
