"""What an evaluation gives, kept whole; the headline is chosen from it on reading."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.metrics import Scores, headline
from aim_exp.types import Benchmark, BenchmarkResult

SCORES_FILE = "scores.json"
ITEMS_FILE = "items.jsonl.gz"


@dataclass(frozen=True)
class Evaluated:
    """A model on one benchmark: its scores and, per item and filter, what it answered.

    An item is JSON, in one line: `task`, `doc_id`, `filter`; `prompt` as it was asked, `target`;
    `choices`, each with `text`, `loglikelihood` and whether it is what the model would write
    (`greedy`), or None; `text`, what the model wrote (a list where it was asked several times),
    or None; `filtered`, what the filter made of the answer; and each metric's value under its
    name in `metrics`.
    """

    scores: Scores
    items: Sequence[str]


def write_result(folder: Path, evaluated: Evaluated) -> None:
    """Write `scores.json` and `items.jsonl.gz` (one line per item and filter) into `folder`."""
    (folder / SCORES_FILE).write_text(json.dumps(asdict(evaluated.scores), indent=1) + "\n")
    lines = "".join(item + "\n" for item in evaluated.items)
    # No time in it: the same items are the same bytes.
    (folder / ITEMS_FILE).write_bytes(gzip.compress(lines.encode(), mtime=0))


def read_scores(folder: Path) -> Scores:
    """The scores in `folder`; EvaluationError if they are not readable."""
    path = folder / SCORES_FILE
    try:
        return Scores(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise EvaluationError(f"{path}: not readable ({error}); delete {folder}") from error


def read_result(folder: Path, benchmark: Benchmark) -> BenchmarkResult:
    """The result in `folder`, with the metric that `benchmark` asks for now."""
    return headline(benchmark, read_scores(folder))


def item_scores(folder: Path, benchmark: Benchmark) -> dict[tuple[str, int], float]:
    """The headline metric of each item in `folder`, by task and number; empty if it has none."""
    metric, _, its_filter = read_result(folder, benchmark).metric.partition(",")
    with gzip.open(folder / ITEMS_FILE, "rt", encoding="utf-8") as lines:
        own = [item for item in map(json.loads, lines) if item["filter"] == its_filter]
    values = {(item["task"], item["doc_id"]): item["metrics"].get(metric) for item in own}
    return {
        item: float(np.mean(value))
        for item, value in values.items()
        if isinstance(value, bool | int | float | list)
    }
