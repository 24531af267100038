"""Benchmarks from local files instead of the hub: where they lie, and tasks that read them.

The rows are the hub dataset's own, one per line of `DIR/DATASET/SPLIT.jsonl` or in
`DIR/DATASET/SPLIT.parquet`. DATASET is the hub's name without its owner, in lower case
(`openai/gsm8k`: `gsm8k`), except that MATH is `math`. Where a task reads one part of a
dataset of many, such as an MMLU subject, it is `DIR/DATASET/PART/SPLIT.jsonl`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.spec import DATA_SUFFIXES
from aim_exp.evaluate.task_index import expanded, leaves, member_name

FOLDERS = {"math-lighteval": "math", "hendrycks_math": "math"}
"""Datasets whose folder is not called as they are."""
WHOLE = ("default", "main", "full")
"""What the hub calls a part that is the whole dataset."""
SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")
NOT_ON_THE_HUB = ("json", "csv", "parquet", "text", "arrow")
"""Readers of the datasets library, whose tasks name their own files."""


@dataclass(frozen=True)
class Source:
    """The folder of one task's data, and the splits that the task reads."""

    folder: Path
    splits: tuple[str, ...]

    def missing(self) -> list[Path]:
        """The files that are not there, each by the first of the names that it may have."""
        return [self._candidates(split)[0] for split in self.splits if not self._file(split)]

    def read(self) -> Any:
        """A `DatasetDict` of the splits, in memory. Raises EvaluationError."""
        from datasets import Dataset, DatasetDict

        files = {split: self._file(split) for split in self.splits}
        return DatasetDict(
            {split: Dataset.from_list(_rows(path)) for split, path in files.items() if path}
        )

    def _file(self, split: str) -> Path | None:
        return next((path for path in self._candidates(split) if path.is_file()), None)

    def _candidates(self, split: str) -> list[Path]:
        return [self.folder / f"{split}{suffix}" for suffix in DATA_SUFFIXES]


def source(data_dir: Path, config: Mapping[str, Any]) -> Source | None:
    """Where the data of the task with this configuration lie; None if it needs no hub."""
    dataset, part = config.get("dataset_path"), config.get("dataset_name") or "default"
    if not dataset or dataset in NOT_ON_THE_HUB or config.get("custom_dataset"):
        return None
    if Path(dataset).is_dir():
        return None
    name = str(dataset).rpartition("/")[2].lower()
    folder = data_dir / FOLDERS.get(name, name) / ("" if part in WHOLE else str(part))
    splits = [config.get(key) for key in SPLIT_KEYS]
    splits.append((config.get("fewshot_config") or {}).get("split"))
    return Source(folder, tuple(dict.fromkeys(split for split in splits if split)))


def is_absent(data_dir: Path, entry: Entry) -> bool:
    """Whether there is no folder for the data of the task."""
    data = source(data_dir, entry.cfg or {})
    return data is not None and not data.folder.is_dir()


class LocalFactory(TaskFactory):
    """Builds lm-eval's tasks on the files below `data_dir`; groups, of the tasks that have some."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self._data_dir = data_dir

    def _load_full_config(
        self, entry: Entry, overrides: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        config = super()._load_full_config(entry, overrides)
        if data := source(self._data_dir, config):
            config |= {"custom_dataset": lambda **_: data.read(), "dataset_kwargs": None}
        return config

    def _build_group_members(
        self,
        member_list: list[str | dict[str, Any]],
        group_name: str,
        overrides: dict[str, Any] | None,
        registry: dict[str, Entry],
    ) -> list[Task | Group]:
        present = [
            member
            for member in expanded(registry, member_list)
            if (entry := registry.get(member_name(member))) is None
            or not all(is_absent(self._data_dir, leaf) for leaf in leaves(registry, entry))
        ]
        return super()._build_group_members(present, group_name, overrides, registry)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if path.suffix == ".parquet":
        from pyarrow.parquet import read_table

        rows = read_table(path).to_pylist()
    else:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except ValueError as error:
                raise EvaluationError(f"{path}: line {number} is no JSON ({error})") from error
    if not rows:
        raise EvaluationError(f"{path}: holds no rows; put the hub's there")
    return rows
