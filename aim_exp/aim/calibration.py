"""Calibration sets: texts, and the recipe that makes token blocks of them.

The recipe is the paper's (Nobari et al. 2025): shuffle with a seed, strip and tokenise each
text, leave out the empty and (`long_texts=skip`) those longer than a block, take the first
`n_samples`, concatenate, cut into blocks, drop the remainder.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from aim_exp.checkpoint.digests import file_digest
from aim_exp.checkpoint.hub import HubFile
from aim_exp.errors import AimError, OneOf, Within, collect, setting_limits

if TYPE_CHECKING:
    from torch import Tensor

PILE = HubFile("mit-han-lab/pile-val-backup", "val.jsonl.zst", "calibration=pile_val")
SUFFIXES = (".txt", ".jsonl", ".parquet")


@dataclass(frozen=True)
class CalibrationBlocks:
    """Token ids, int64 [n, block_size], and how many texts and tokens went into them."""

    ids: Tensor
    n_texts: int
    n_tokens: int

    def check_rows(self, rows: int, tokenizer: Any) -> None:
        """AimError for a token beyond the `rows` of the embedding of the model to be measured."""
        if (last := int(self.ids.max())) >= rows:
            word = tokenizer.convert_ids_to_tokens(last)
            raise AimError(
                f"calibration: its texts hold {word}, token {last}, and the model that reads them "
                f"has the rows of {rows} tokens; take {word} out of the texts, or resize the "
                "model's embeddings with transformers first"
            )


@dataclass(frozen=True, kw_only=True)
class CalibrationSet(ABC):
    """Texts and the recipe that turns them into blocks.

    `n_samples` is the most texts used, `block_size` counts tokens. `long_texts`: a text
    longer than a block is left out (`skip`) or cut into pieces of at most a block, each of
    which counts as a text (`split`). The first `skip_positions` of each block are read but not
    counted. `offload=layers` runs base one decoder layer at a time,
    for models larger than memory, with the same result. `per_expert`, {expert: file} or None, are
    the texts of methods that measure each expert on its own; the recipe is the same.
    """

    n_samples: Annotated[int, Within(1)]
    block_size: Annotated[int, Within(1)]
    seed: Annotated[int, Within(0)]
    add_special_tokens: bool
    long_texts: Annotated[str, OneOf("skip", "split")]
    skip_positions: int
    offload: Annotated[str, OneOf("none", "layers")]
    per_expert: Any

    @abstractmethod
    def source(self, memo: Path) -> str:
        """What the texts are called by in a key; digests of files are remembered in `memo`."""

    @abstractmethod
    def texts(self) -> Sequence[str]:
        """All texts, in their own order."""

    def problems(self) -> list[str]:
        """What is wrong with the settings, `key=value: why; fix` each."""
        problems = setting_limits("calibration", self)
        if not 0 <= self.skip_positions < max(1, self.block_size):
            problems.append(
                f"calibration.skip_positions={self.skip_positions}: must be at least 0, and less "
                f"than calibration.block_size={self.block_size}"
            )
        return problems

    def expert_problems(self, experts: Sequence[str]) -> list[str]:
        """What is wrong with the texts of `experts` of their own."""
        key = "calibration.per_expert"
        if not isinstance(self.per_expert, Mapping | None):
            return [f"{key}={self.per_expert}: must be a table {{expert: FILE, ...}}"]
        problems = []
        for name in self.per_expert or {}:
            if name not in experts:
                problems.append(f"{key}.{name}: no such expert; there are {', '.join(experts)}")
            else:
                own = self.of(name).problems()
                problems += [line.replace("calibration.path=", f"{key}.{name}=") for line in own]
        return problems

    def of(self, expert: str) -> CalibrationSet:
        """The expert's own texts by the same recipe; these, where it has none."""
        path = (self.per_expert or {}).get(expert)
        return self if path is None else TextFile(path=str(path), **self._recipe)

    @property
    def _recipe(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(CalibrationSet)}

    def spec(self, memo: Path) -> dict[str, Any]:
        """What the blocks depend on, for the content key."""
        keys = self._recipe.keys() - {"offload", "per_expert"}
        return {"source": self.source(memo), **{key: self._recipe[key] for key in keys}}

    def bytes_to_download(self) -> int:
        """Of texts that are not on disk."""
        return 0

    def blocks(self, tokenizer: Any) -> CalibrationBlocks:
        """Tokenise and cut. Raises AimError where the texts do not fill one block."""
        import torch

        ids: list[int] = []
        n_texts = 0
        for sample in self._samples(tokenizer):
            ids += sample
            n_texts += 1
            if n_texts == self.n_samples:
                break
        n_blocks = len(ids) // self.block_size
        if not n_blocks:
            raise AimError(
                f"calibration.block_size={self.block_size}: the {n_texts} usable texts have only "
                f"{len(ids)} tokens; lower block_size, or try calibration.long_texts=split"
            )
        n_tokens = n_blocks * self.block_size
        blocks = torch.tensor(ids[:n_tokens]).view(n_blocks, self.block_size)
        return CalibrationBlocks(blocks, n_texts, n_tokens)

    def _samples(self, tokenizer: Any) -> Iterator[list[int]]:
        """Token ids of the texts that qualify, shuffled as the datasets library shuffles."""
        import numpy as np

        texts = self.texts()
        for index in np.random.default_rng(self.seed).permutation(len(texts)):
            text = texts[int(index)].strip()
            if not text:
                continue
            ids = tokenizer(text, add_special_tokens=self.add_special_tokens)["input_ids"]
            if len(ids) <= self.block_size:
                yield ids
            elif self.long_texts == "split":
                for start in range(0, len(ids), self.block_size):
                    yield ids[start : start + self.block_size]


@dataclass(frozen=True, kw_only=True)
class EmbeddedTexts(CalibrationSet):
    """The texts that ship with the project, held out from the tiny population's training."""

    def of(self, expert: str) -> CalibrationSet:
        """Of the tiny population's experts, what they were trained to do."""
        from aim_exp.population.embedded.training import EXPERTS

        given = super().of(expert)
        if given is not self or expert not in EXPERTS:
            return given
        return EmbeddedExamples(expert=expert, **self._recipe)

    def source(self, memo: Path) -> str:
        """A digest of the texts: they depend on the Python version."""
        import hashlib

        return "embedded:" + hashlib.sha256(json.dumps(self.texts()).encode()).hexdigest()

    def texts(self) -> Sequence[str]:
        """Passages of topics that training never saw."""
        from aim_exp.population.embedded.corpus import calibration_texts

        return calibration_texts()


@dataclass(frozen=True, kw_only=True)
class EmbeddedExamples(EmbeddedTexts):
    """Examples of what an expert of the tiny population was trained to do, drawn anew."""

    expert: str

    def texts(self) -> Sequence[str]:
        """Prompts with their answers; no prompt is a test item's."""
        from aim_exp.population.embedded.training import expert_examples

        return expert_examples(self.expert)


@dataclass(frozen=True, kw_only=True)
class TextFile(CalibrationSet):
    """Your own file: .txt (blank lines between texts), .jsonl or .parquet (a field `text`)."""

    path: str

    def problems(self) -> list[str]:
        """Also a file that is missing, of another kind, or unreadable."""
        problems = super().problems()
        path = Path(self.path)
        if path.suffix not in SUFFIXES:
            kinds = ", ".join(SUFFIXES)
            problems.append(f"calibration.path={self.path}: must be a file of kind {kinds}")
        elif not path.is_file():
            problems.append(f"calibration.path={self.path}: no such file")
        else:
            texts = collect(problems, self.texts)
            if texts is not None and not any(text.strip() for text in texts):
                problems.append(f"calibration.path={self.path}: holds no text")
        return problems

    def source(self, memo: Path) -> str:
        """The digest of the file."""
        return "file:" + file_digest(Path(self.path), memo)

    def texts(self) -> Sequence[str]:
        """The file's texts. Raises AimError naming the line or column that is wrong."""
        path = Path(self.path)
        try:
            if path.suffix == ".txt":
                return _paragraphs(path.read_text(encoding="utf-8"))
            if path.suffix == ".jsonl":
                lines = path.read_text(encoding="utf-8").split("\n")
                return [_json_text(path, n, t) for n, t in enumerate(lines, 1) if t.strip()]
            return self._parquet_texts(path)
        except (OSError, UnicodeDecodeError) as error:
            raise AimError(f"calibration.path={self.path}: cannot be read ({error})") from error

    def _parquet_texts(self, path: Path) -> Sequence[str]:
        from pyarrow import ArrowInvalid, parquet

        try:
            column = parquet.read_table(path, columns=["text"])["text"]
        except (ArrowInvalid, KeyError) as error:
            raise AimError(
                f"calibration.path={self.path}: no parquet file with a column text ({error})"
            ) from error
        return [text for text in column.to_pylist() if text]


@dataclass(frozen=True, kw_only=True)
class PileValidation(CalibrationSet):
    """The paper's calibration texts: the Pile's validation split, 214,670 documents.

    From the hub (`mit-han-lab/pile-val-backup`, downloaded once, 470 MB), or from `path`, a
    copy of its `val.jsonl.zst` or of the unpacked `.jsonl`.
    """

    path: str | None

    def problems(self) -> list[str]:
        """Also a copy that is missing, or no copy and no hub."""
        problems = super().problems()
        if self.path is not None:
            if not Path(self.path).is_file():
                problems.append(f"calibration.path={self.path}: no such file")
        elif not problems:
            collect(problems, self.bytes_to_download)
        return problems

    def source(self, memo: Path) -> str:
        """The digest of the file, wherever it is."""
        digest = file_digest(Path(self.path), memo) if self.path else PILE.digest(memo)
        return f"pile:{digest}"

    def bytes_to_download(self) -> int:
        """The whole file, unless there is a copy."""
        return 0 if self.path else PILE.bytes_to_download()

    def texts(self) -> Sequence[str]:
        """The documents, each parsed when it is asked for."""
        import pyarrow as pa

        path = Path(self.path) if self.path else PILE.download()
        try:
            with pa.input_stream(str(path), compression="detect") as stream:
                return _JsonTexts(path, stream.read().splitlines())
        except (OSError, pa.ArrowInvalid) as error:
            raise AimError(f"calibration.path={path}: cannot be read ({error})") from error


class _JsonTexts(Sequence[str]):
    """The field `text` of JSON lines."""

    def __init__(self, path: Path, lines: Sequence[bytes]) -> None:
        self._path = path
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        return _json_text(self._path, index + 1, self._lines[index])


def _json_text(path: Path, number: int, line: str | bytes) -> str:
    try:
        text = json.loads(line)["text"]
        if not isinstance(text, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"line {number} is no JSON object with a field text, a string"
        raise AimError(f"calibration.path={path}: {message}") from error
    return text


def _paragraphs(content: str) -> list[str]:
    paragraphs = "\n".join(line.rstrip() for line in content.splitlines()).split("\n\n")
    return [text.strip() for text in paragraphs if text.strip()]
