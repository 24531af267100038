"""Records that a command wrote, read as their users would: plain JSON."""

import gzip
import json
from pathlib import Path
from typing import Any


def result(directory: Path) -> dict[str, Any]:
    """`result.json`."""
    return json.loads((directory / "result.json").read_text())


def numbers(directory: Path) -> list[dict[str, Any]]:
    """The models of a record, with all that was scored."""
    return [{**model, "path": None} for model in result(directory)["models"]]


def model_of(record: dict[str, Any], name: str = "merged") -> dict[str, Any]:
    """The model of that name."""
    return next(model for model in record["models"] if model["name"] == name)


def responses_of(record: dict[str, Any]) -> dict[str, str]:
    """By model, the key of its responses."""
    return {model["name"]: model["keys"]["responses"] for model in record["models"]}


def items_of(directory: Path, benchmark: str, name: str = "merged") -> list[dict[str, Any]]:
    """A model's items on a benchmark, from the file that the record names."""
    file = model_of(result(directory), name)["scores"][benchmark]["items"]
    with gzip.open(directory / file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
