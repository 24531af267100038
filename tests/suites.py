"""The suites `paper` and `standard`, and a model that answers them from a script."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark_rows import IFEVAL
from hydra import compose, initialize_config_dir
from lm_eval.api.model import LM

from aim_exp.app import CONFIG_FOLDER
from aim_exp.evaluate.suite import build_suite
from aim_exp.types import Suite

SUITES = ("paper", "standard")


def suite_of(name: str, data_dir: Path | None, *overrides: str) -> Suite:
    """The suite as the configuration makes it."""
    where = f"benchmarks.data_dir={data_dir or 'null'}"
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", [f"benchmarks={name}", where, *overrides])
    problems: list[str] = []
    suite = build_suite(config.benchmarks, name, problems)
    assert suite is not None, problems
    return replace(suite, allow_code_execution=True)


class Scripted(LM):
    """Answers each item with what `answer` says, and prefers the choice that it names."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], str]) -> None:
        super().__init__()
        self._answer = answer
        self.prompts: list[str] = []

    def generate_until(self, requests):
        self.prompts += [request.args[0] for request in requests]
        return [self._answer(request.task_name, request.doc) for request in requests]

    def loglikelihood(self, requests):
        self.prompts += [request.args[0] for request in requests]
        return [
            (0.0 if request.args[1].strip() == self._answer("mmlu", request.doc) else -1.0, True)
            for request in requests
        ]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


def gold(task: str, doc: dict[str, Any]) -> str:
    answers: dict[str, Callable[[], str]] = {
        "humaneval": lambda: doc["canonical_solution"],
        "mbpp": lambda: doc["code"],
        "mmlu": lambda: "ABCD"[doc["answer"]],
        "gsm8k": lambda: doc["answer"],
        "aim_paper_gsm8k": lambda: f"500 each. The answer is: {doc['answer']} pens.",
        "aim_paper_math": lambda: f"So $\\boxed{{{doc['answer']}}}$",
        "aim_standard_math": lambda: doc["solution"],
    }
    if task.endswith("ifeval"):
        return next(row["gold"] for row in IFEVAL if row["key"] == doc["key"])
    return answers[task]()


def wrong(task: str, doc: dict[str, Any]) -> str:
    if task == "mmlu":
        return "BCDA"[doc["answer"]]
    return "" if task.endswith("ifeval") else "    The answer is 17."
