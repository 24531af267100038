"""A task tried out on its first item, so that a wrong file is found before a model answers."""

from __future__ import annotations

from typing import Any

from aim_exp.errors import EvaluationError


def try_first_item(task: Any) -> None:
    """Make the prompt and the target, and score an empty answer, unless scoring runs code.

    Raises EvaluationError where there is no item, or an item lacks a column. Whatever else a
    task makes of an empty answer is not a matter of the file.
    """
    name = task.config.task
    item = next(iter(task.eval_docs), None)
    if item is None:
        raise EvaluationError(f"{name}: its file holds no items")
    try:
        task.doc_to_text(item)
        task.doc_to_target(item)
        if task.OUTPUT_TYPE == "generate_until" and not task.get_config("unsafe_code"):
            task.process_results(item, [""])
    except KeyError as error:
        raise EvaluationError(f"{name}: its items lack the column {error}") from error
