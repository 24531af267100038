"""A task tried out as it is loaded, so that what makes its scores void is known before any model.

lm-eval tells of most of this in its log, while models answer, or not at all.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.api.metrics import bleu, chrf, mean, ter

from aim_exp.errors import EvaluationError

INSTALL = "pip install 'aim-exp[benchmarks]'"

PERCENT = (bleu, chrf, ter)
"""lm-eval's aggregations that end at 100, which a short answer does not show."""


@dataclass(frozen=True)
class Rehearsal:
    """What was seen: sentences for the user, and each metric's values by its key `name,filter`.

    The values are those of the first item with no answer and with the right one; None where the
    task could not be scored in this way.
    """

    warnings: tuple[str, ...]
    metrics: Mapping[str, list[float]] | None


def rehearse(task: Any) -> Rehearsal:
    """Make a prompt and examples, find every item's answer, and score two answers of the first.

    Raises EvaluationError for a task whose scores would be void. Examples are taken from other
    items than the one that is asked, from here on.
    """
    items = list(task.eval_docs)
    try:
        if not items:
            raise EvaluationError("its file holds no items")
        _check_columns(task)
        _check_scoring(task)
        return Rehearsal((*_examples(task), *_choices(task, items)), _scored(task, items[0]))
    except (EvaluationError, KeyError, ImportError) as error:
        reason = str(error)
        if isinstance(error, KeyError):
            reason = f"its items lack the column {error}"
        elif isinstance(error, ImportError):
            reason = f"a package that it needs is missing ({error}); {INSTALL}"
        raise EvaluationError(f"{task.config.task}: {reason}") from error


def _check_columns(task: Any) -> None:
    """A word that is no column is to lm-eval a text, the same for every item."""
    own = callable(task.config.process_results)
    for key in ("doc_to_text",) if own else ("doc_to_text", "doc_to_target"):
        word = getattr(task.config, key)
        constant = isinstance(word, str) and word.isidentifier() and word not in task.features
        choices = task.config.doc_to_choice
        scored = key == "doc_to_target" and choices
        if constant and not (scored and word in task.doc_to_choice(task.eval_docs[0])):
            columns = ", ".join(task.features)
            raise EvaluationError(f"{key}: of {columns}, its items lack the column '{word}'")


def _check_scoring(task: Any) -> None:
    """A metric or an aggregation that lm-eval did not find is None to it, until the end."""
    for name, metric in getattr(task, "_metric_fn_list", {}).items():
        if metric is None and not callable(task.config.process_results):
            raise EvaluationError(f"metric={name}: neither lm-eval nor evaluate has such a one")
    for name, aggregation in (task.aggregation() or {}).items():
        if aggregation is None:
            raise EvaluationError(f"{name}: there is no such aggregation")


def _examples(task: Any) -> Iterator[str]:
    """Enough of them, and none the item itself."""
    shots = task.config.num_fewshot or 0
    sampler = getattr(task, "sampler", None)
    if not shots or sampler is None:
        return
    config, given = task.config, task.fewshot_cfg
    scored = config.test_split or config.validation_split
    fallback = config.training_split or config.validation_split or config.test_split
    own = given.split or (None if given.samples is not None else fallback)
    pool = len(sampler.fewshot_indices or sampler.df)
    if own == scored:
        pool -= 1
        if given.split is None:
            yield (
                f"its examples are other items of the split that is scored, {scored}; name another "
                "one as its fewshot_split"
            )
        given.split = config.test_split  # by which lm-eval knows not to take the item itself
    if pool < shots:
        raise EvaluationError(
            f"num_fewshot={shots}: there are {pool} other items to take examples from; set it to "
            f"at most {pool}"
        )


def _choices(task: Any, items: list[Any]) -> Iterator[str]:
    """Whether each item's answer is one of its choices."""
    if task.config.doc_to_choice is None or callable(task.config.process_results):
        return
    answer_of = task.doc_to_text if task.multiple_input else task.doc_to_target
    void = [
        number
        for number, item in enumerate(items)
        if not _is_among(answer_of(item), task.doc_to_choice(item))
    ]
    if not void:
        return
    first = items[void[0]]
    example = (
        f"item {void[0]} has {answer_of(first)!r}, and {len(task.doc_to_choice(first))} choices, "
        "which count from 0"
    )
    if len(void) == len(items):
        raise EvaluationError(f"no item's answer is one of its choices: {example}")
    yield (
        f"the answer of {len(void)} of {len(items)} items is none of their choices, so that they "
        f"count as wrong for every model: {example}"
    )


def _is_among(answer: Any, choices: list[str]) -> bool:
    if isinstance(answer, list):
        return bool(answer) and all(_is_among(each, choices) for each in answer)
    if isinstance(answer, str):
        return answer in choices
    return 0 <= answer < len(choices)


def _scored(task: Any, item: Any) -> dict[str, list[float]] | None:
    """The metrics of one item, answered with nothing and with what is right, each aggregated.

    None where a task makes something else of such an answer: that is no matter of its file.
    """
    if getattr(task, "MULTIMODAL", False):
        return None
    metrics: dict[str, list[float]] = {}
    for right in (False, True):
        if right and task.get_config("unsafe_code"):
            continue
        try:
            for key, value in _metrics(task, item, right=right):
                metrics.setdefault(key, []).append(value)
        except (KeyError, ImportError):
            raise
        except Exception:  # whatever a task's own functions raise
            return None
    return metrics


def _metrics(task: Any, item: Any, *, right: bool) -> Iterator[tuple[str, float]]:
    text, target = task.doc_to_text(item), task.doc_to_target(item)
    context = task.doc_to_choice(item) if getattr(task, "multiple_input", 0) else text
    requests = task.construct_requests(
        doc=item,
        ctx=context,
        metadata=(task.config.task, 0, 1),
        apply_chat_template=False,
        chat_template=None,
    )
    requests = requests if isinstance(requests, list) else [requests]
    for number, request in enumerate(requests):
        best = number == (target if isinstance(target, int) else 0)
        answer = target[0] if isinstance(target, list) and target else target
        request.resps = [
            {
                "loglikelihood": (-1.0 if best == right else -2.0, best == right),
                "loglikelihood_rolling": -1.0,
                "generate_until": str(answer) if right else "",
            }[request.request_type]
        ]
    for ensemble in task._filters:
        ensemble.apply(requests)
        responses = [request.filtered_resps[ensemble.name] for request in requests]
        for name, value in task.process_results(item, responses).items():
            aggregate = (task.aggregation() or {}).get(name) or mean
            yield f"{name},{ensemble.name}", _number(aggregate, value)


def _number(aggregate: Any, value: Any) -> float:
    """NaN where one item is too few."""
    if aggregate in PERCENT:
        return 100.0
    try:
        return float(aggregate([value]))
    except ImportError:
        raise
    except Exception:  # whatever an aggregation makes of a single item
        return math.nan
