"""What W&B wrote offline, read back."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record


def read_back(directory: Path, patience=30) -> list[Record]:
    """The records of the one run below `directory`, once W&B's own process has closed it."""
    (path,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + patience
    records = records_in(path)
    while not exit_codes(records) and time.monotonic() < deadline:
        time.sleep(0.05)
        records = records_in(path)
    return records


def exit_codes(records: list[Record]) -> list[int]:
    return [record.exit.exit_code for record in records if record.HasField("exit")]


def records_in(path: Path) -> list[Record]:
    """LevelDB's log format, after 7 bytes."""
    data, position, parts, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # no header fits: the rest of the block is padding
            position += left
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]  # 1 whole, 2 first, 3 middle, 4 last
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4) and position <= len(data):
            records.append(Record.FromString(parts))
            parts = b""
    return records


def summary_of(records: list[Record]) -> dict[str, Any]:
    """The last value of every key; `tables/scores` for what is nested in it, too."""
    found: dict[str, Any] = {}
    for record in records:
        for item in record.summary.update:
            found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found


def config_of(records: list[Record]) -> dict[str, Any]:
    run = next(record.run for record in records if record.HasField("run"))
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def rows_of(records: list[Record]) -> list[dict[str, Any]]:
    """What was logged at a step each."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in (record.history for record in records if record.HasField("history"))
    ]


def table_in(directory: Path, name: str) -> list[dict[str, Any]]:
    """A logged table, as rows by column."""
    (path,) = directory.glob(f"wandb/offline-run-*/files/media/table/tables/{name}_*.table.json")
    table = json.loads(path.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def runs_to_sync(*directories: Path) -> list[str]:
    """The ids of the runs that `wandb sync` would upload."""
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "sync", "--dry-run",
         *[path for folder in directories for path in folder.glob("wandb/offline-run-*")]],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    said = done.stdout + done.stderr
    return sorted(line.rsplit("run-")[-1].removesuffix(".wandb")
                  for line in said.splitlines() if line.endswith(".wandb"))  # fmt: skip
