r"""GSM8K and MATH as the paper's authors score them: a final answer is found, then compared.

The answer is the last `\boxed`, else what follows the last "he answer is", else the last
number. Two answers are equal if they are so symbolically, or one is the other with a unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from math_verify import parse, verify

NUMBER = r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_WITH_UNIT = re.compile(rf"\\?\$?({NUMBER})\s+[A-Za-z][A-Za-z ]*")


def gsm8k_items(dataset: Dataset) -> Dataset:
    """The items with `problem` and the short `answer`, which follows `####` in the hub's."""
    return dataset.map(
        lambda doc: {
            "problem": doc["question"],
            "answer": doc["answer"].rpartition("####")[2].strip(),
        }
    )


def math_items(dataset: Dataset) -> Dataset:
    r"""The items with the short `answer`, the last `\boxed` of the hub's solution."""
    return dataset.map(lambda doc: {"answer": final_answer(doc["solution"])})


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 if the response's final answer equals the item's."""
    return {"exact_match": float(same_answer(doc["answer"], final_answer(results[0])))}


def final_answer(text: str) -> str:
    """The answer that `text` ends in, by the authors' rule; empty if there is none."""
    if "\\boxed" in text:
        return _boxed(text.rpartition("\\boxed")[2])
    if "he answer is" in text:
        line = text.rpartition("he answer is")[2].strip().split("\n")[0]
        return line.lstrip(": ").removesuffix(".").strip()
    numbers = re.findall(NUMBER, text)
    return numbers[-1].rstrip(",") if numbers else ""


def same_answer(gold: str, answer: str) -> bool:
    """Whether the two are equal as strings or symbolically; a unit after a number is ignored."""
    gold, answer = _without_unit(gold), _without_unit(answer)
    if not gold or not answer:
        return False
    return gold == answer or verify(parse(f"${gold}$"), parse(f"${answer}$"))


def _boxed(rest: str) -> str:
    r"""What `\boxed` holds: up to the brace that closes its first, or without braces, a word."""
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    for index, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:index].strip()
    return rest[1:].strip()  # cut off before its end


def _without_unit(answer: str) -> str:
    match = _WITH_UNIT.fullmatch(answer.strip())
    return match[1] if match else answer.strip().strip("$")
