"""Vocabularies that differ: one set of embedding rows that every model of a merge has.

`union`: base's tokens keep their ids; the tokens that experts add follow in the experts'
order, in base's padding rows first (those beyond its tokenizer). An expert that lacks a token of
base's has the mean of its own rows for it. A token that base lacks has the weighted mean over the
experts that have it in every model, base too: nothing is left to merge or to relax in such a row.
`base`: every model is cut to base's rows. Nothing here imports torch or transformers before
vocabularies are known to differ.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from aim_exp.checkpoint.files import (
    CONFIG_FILE,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
    TOKENIZER_FILES,
    copy_companions,
    json_if_there,
    matching,
    tokenizer_files,
    write_json,
)
from aim_exp.checkpoint.names import EMBEDDINGS
from aim_exp.checkpoint.reader import Checkpoint, TensorInfo
from aim_exp.errors import CheckpointError, first_line

if TYPE_CHECKING:
    from torch import Tensor

RULES = ("union", "base")
MEAN = -1
"""In a list of rows: the mean of all rows."""


@dataclass(frozen=True)
class Vocabulary:
    """The rows of a merge's embeddings.

    `rows[i]` are those of the i-th model (base first): for each row of the merge the model's
    own, or MEAN. `added` are the tokens beyond base's, with their ids.
    """

    rows: tuple[Sequence[int], ...]
    added: Mapping[str, int]

    @property
    def new(self) -> Sequence[int]:
        """The rows of the merge that base lacks and an expert has."""
        base, *experts = self.rows
        return [
            row
            for row, own in enumerate(base)
            if own == MEAN and any(expert[row] != MEAN for expert in experts)
        ]


class NewRows:
    """By embedding, the rows `of` a vocabulary that base lacks: the same in every model.

    Row by row the mean over the experts that have it, by `weights`, which are theirs in the merge;
    where these add up to nothing, the plain mean.
    """

    def __init__(
        self,
        of: Vocabulary,
        experts: Sequence[Checkpoint],
        weights: Callable[[str], Sequence[float]],
    ) -> None:
        self.indices = of.new
        self._rows = [[rows[row] for row in of.new] for rows in of.rows[1:]]
        self._experts = experts
        self._weights = weights

    def values(self, name: str) -> Tensor:
        """[new rows, channels], in a dtype that rounds no expert's."""
        import torch

        tensors = [expert.tensor(name) for expert in self._experts]
        rows = torch.tensor(self._rows)
        has = (rows != MEAN).float()
        shares = has * torch.tensor(self._weights(name), dtype=torch.float32)[:, None]
        shares = torch.where(shares.sum(0) == 0, has, shares)
        shares = shares / shares.sum(0)
        own = (tensor[row.clamp(min=0)] for tensor, row in zip(tensors, rows, strict=True))
        shape = (-1, *[1] * (tensors[0].ndim - 1))
        parts = (share.view(shape) * row for share, row in zip(shares, own, strict=True))
        return torch.stack(list(parts)).sum(0)


class AlignedCheckpoint(Checkpoint):
    """A checkpoint with the embedding rows of another vocabulary: `rows`, its own or MEAN.

    `new` are those that base lacks. `folder` holds the configuration and tokenizer that go with
    them.
    """

    def __init__(
        self, checkpoint: Checkpoint, rows: Sequence[int], new: NewRows, folder: Path
    ) -> None:
        super().__init__(folder, checkpoint.label)
        self._checkpoint = checkpoint
        self._rows = rows
        self._new = new

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """The headers, embeddings with the new number of rows."""
        return {
            name: replace(info, shape=(len(self._rows), *info.shape[1:]), update=None)
            if name.endswith(EMBEDDINGS)
            else info
            for name, info in self._checkpoint.tensors.items()
        }

    def tensor(self, name: str) -> Tensor:
        """The tensor; an embedding is a copy, its means rounded to the stored dtype.

        With rows that base lacks it is float32 or wider, so that these are equal in all models.
        """
        import torch

        tensor = self._checkpoint.tensor(name)
        if not name.endswith(EMBEDDINGS):
            return tensor
        rows = torch.tensor(self._rows)
        aligned = tensor[rows.clamp(min=0)]
        aligned[rows == MEAN] = tensor.mean(0, dtype=torch.float64).to(tensor.dtype)
        if self._new.indices:
            values = self._new.values(name)
            aligned = aligned.to(torch.promote_types(aligned.dtype, values.dtype))
            aligned[self._new.indices] = values.to(aligned.dtype)
        return aligned


def embedding_rows(checkpoint: Checkpoint) -> int | None:
    """Rows of the embeddings, None if unknown. CheckpointError if config and tensors disagree."""
    counts = {
        name: info.shape[0]
        for name, info in checkpoint.tensors.items()
        if name.endswith(EMBEDDINGS)
    }
    configured = checkpoint.text_config.get("vocab_size")
    if configured is not None:
        counts["vocab_size in config.json"] = configured
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise CheckpointError(
            f"{checkpoint.label}: its vocabulary has no one size ({said}); resize the model with "
            "transformers first"
        )
    return next(iter(counts.values()), None)


def differs(base: Checkpoint, other: Checkpoint) -> bool:
    """Whether `other` has other rows or other tokens than base. Raises CheckpointError."""
    if embedding_rows(base) != embedding_rows(other):
        return True
    if tokenizer_files(base.folder) == tokenizer_files(other.folder):
        return False
    return token_ids(base) != token_ids(other)


def vocabulary(rule: str, base: Checkpoint, experts: Sequence[Checkpoint]) -> Vocabulary:
    """The rows of a merge by `rule`. Raises CheckpointError for a model without a tokenizer."""
    models = (base, *experts)
    if not any(name.endswith(EMBEDDINGS) for name in base.tensors):
        known = ", ".join(EMBEDDINGS)
        raise CheckpointError(
            f"base: its vocabulary differs from an expert's, and no tensor is known to be its "
            f"embedding (named {known}); give the models one vocabulary first"
        )
    sizes = [embedding_rows(model) or 0 for model in models]
    if rule == "base":
        return Vocabulary(tuple(_own_or_mean(range(sizes[0]), size) for size in sizes), {})
    # A token that a tokenizer lists beyond the model's rows is one that the model lacks.
    tables = [
        {token: row for token, row in token_ids(model).items() if row < size}
        for model, size in zip(models, sizes, strict=True)
    ]
    union = dict(token_ids(base))
    added: dict[str, int] = {}
    free = max(union.values()) + 1
    for table in tables[1:]:
        for token in sorted(table.keys() - union.keys(), key=table.__getitem__):
            union[token] = added[token] = free
            free += 1
    size = max(sizes[0], 1 + max(union[token] for table in tables for token in table))
    rows = []
    for table, own in zip(tables, sizes, strict=True):
        own_rows = _own_or_mean(range(size), own)  # what no token uses is padding
        for token, row in union.items():
            if row < size:
                own_rows[row] = table.get(token, MEAN)
        rows.append(own_rows)
    return Vocabulary(tuple(rows), added)


def _own_or_mean(wanted: range, size: int) -> list[int]:
    return [row if row < size else MEAN for row in wanted]


def align(
    rule: str,
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    folder: Path,
    weights: Callable[[str], Sequence[float]],
) -> tuple[Checkpoint, Sequence[Checkpoint]]:
    """Base and experts with the rows of `rule`; `folder` is what `write_companions` filled.

    `weights` are the experts' in the merge, of a tensor.
    """
    merged = vocabulary(rule, base, experts)
    new = NewRows(merged, experts, weights)
    first, *others = (
        AlignedCheckpoint(model, rows, new, folder)
        for model, rows in zip((base, *experts), merged.rows, strict=True)
    )
    return first, others


def write_companions(
    rule: str, base: Checkpoint, experts: Sequence[Checkpoint], folder: Path
) -> None:
    """Make `folder`: base's companions, with the rows and the tokens that `rule` gives a merge.

    Raises CheckpointError where base's tokenizer cannot take the experts' tokens in.
    """
    merged = vocabulary(rule, base, experts)
    folder.mkdir()
    copy_companions(base.folder, folder)
    config = resized(base.config, embedding_rows(base), len(merged.rows[0]))
    write_json(folder / CONFIG_FILE, config)
    if merged.added:
        _write_tokenizer(_extended_tokenizer(base, experts, merged.added), merged.added, folder)


def _write_tokenizer(tokenizer: Any, added: Mapping[str, int], folder: Path) -> None:
    """Put the tokens `added` into base's tokenizer files in `folder`; all else stays base's words.

    What transformers 5 writes beside the vocabulary, other readers do not know.
    """
    with TemporaryDirectory(dir=folder) as scratch:
        tokenizer.save_pretrained(scratch)
        saved = Path(scratch)
        whole = [saved / TOKENIZER_FILE] if (saved / TOKENIZER_FILE).is_file() else saved.iterdir()
        for path in whole:
            shutil.copyfile(path, folder / path.name)
    settings = folder / TOKENIZER_CONFIG
    if "added_tokens_decoder" in (content := json_if_there(settings, "base")):
        known = {str(row): tokenizer.added_tokens_decoder[row] for row in added.values()}
        states = {row: token.__getstate__() for row, token in known.items()}
        content["added_tokens_decoder"] |= states
        write_json(settings, content)
    if tokens := json_if_there(folder / "added_tokens.json", "base"):
        write_json(folder / "added_tokens.json", {**tokens, **added})


def _extended_tokenizer(
    base: Checkpoint, experts: Sequence[Checkpoint], added: Mapping[str, int]
) -> Any:
    from transformers import AddedToken

    tokenizer = load_tokenizer(base)
    settings = {
        token.content: token
        for expert in reversed(experts)
        for token in load_tokenizer(expert).added_tokens_decoder.values()
    }
    for token, row in added.items():
        tokenizer.add_tokens([settings.get(token, AddedToken(token, normalized=False))])
        if tokenizer.convert_tokens_to_ids(token) != row:
            raise CheckpointError(
                f"vocabulary=union: base's tokenizer does not give token {token} the id {row}; "
                "set vocabulary=base"
            )
    return tokenizer


def resized(config: Any, before: int | None, after: int) -> Any:
    """The configuration with every `vocab_size` that is `before` made `after`; nested ones too."""
    if not isinstance(config, dict):
        return config
    return {
        key: after if key == "vocab_size" and value == before else resized(value, before, after)
        for key, value in config.items()
    }


def token_ids(model: Checkpoint) -> Mapping[str, int]:
    """Every token of the model's tokenizer with its id. Raises CheckpointError without one."""
    return _token_ids(model.label, model.folder, tuple(_stamps(model.folder)))


@lru_cache(maxsize=16)
def _token_ids(label: str, folder: Path, stamps: tuple[object, ...]) -> Mapping[str, int]:
    del stamps  # files that change are read again
    return load_tokenizer(Checkpoint(folder, label)).get_vocab()


def load_tokenizer(model: Checkpoint) -> Any:
    """A model's tokenizer, as transformers has it. CheckpointError where it cannot be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model.folder, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever a broken file makes it raise
        raise CheckpointError(
            f"{model.label}: {model.folder} has no readable tokenizer ({first_line(error)}); "
            "add base's tokenizer files"
        ) from error


def _stamps(folder: Path) -> list[object]:
    stats = ((name, path.stat()) for name, path in matching(folder, TOKENIZER_FILES).items())
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
