"""The functions that the YAML files of the tiny tasks name: their data and their scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from datasets import Dataset

from aim_exp.evaluate.code.execution import runner
from aim_exp.population.embedded.items import test_items


def load(kind: str, items_seed: int = 0, **_: object) -> dict[str, Dataset]:
    """A set of items of a kind as lm-eval wants them; they stay in memory."""
    return {"test": Dataset.from_list(test_items(kind, items_seed))}


def run_tests(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 if the completed function passes the item's asserts."""
    answer = "\n".join([doc.get("prelude") or "", doc["prompt"] + results[0]])
    return {"pass@1": float(runner().passes(answer, doc["tests"]).passed)}


def compare_result(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 if what follows the last `=` is the item's result."""
    _, equals, result = results[0].rpartition("=")
    return {"exact_match": float(bool(equals) and result.strip() == doc["result"])}


def compare_answer(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 if the answer is the item's, outer white space aside."""
    return {"exact_match": float(results[0].strip() == doc["answer"].strip())}


def text_likelihood(doc: Mapping[str, Any], results: Sequence[float]) -> dict[str, Any]:
    """The log-likelihood of the item's text and its bytes, which both metrics are made of."""
    pair = (results[0], len(doc["text"].encode()))
    return {"byte_probability": pair, "bits_per_byte": pair}


def byte_probability(items: Sequence[tuple[float, int]]) -> float:
    """The geometric mean of the probabilities of bytes: 2 to the power of minus bits per byte."""
    return exp(sum(value for value, _ in items) / sum(count for _, count in items))
