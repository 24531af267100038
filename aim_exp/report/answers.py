"""What two models answered to the same items, side by side: for the page and for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from aim_exp.errors import AimError
from aim_exp.report.frames import answer, item_score
from aim_exp.report.grouped import grouped
from aim_exp.report.items import DAMAGED, Source


@dataclass(frozen=True)
class Questions:
    """What was asked: each is [items], by task and number."""

    ids: tuple[str, ...]
    """`gsm8k 12`."""
    prompts: tuple[str, ...]
    starts: tuple[int, ...]
    """Where in a prompt the item's own part begins: after what all of its task have in common."""
    targets: tuple[str, ...]
    choices: tuple[tuple[str, ...] | None, ...]


@dataclass(frozen=True)
class Answers:
    """What a model made of them: each is [items], in the same order."""

    questions: Questions
    scores: tuple[float | None, ...]
    """On the scale of the benchmark's."""
    texts: tuple[str, ...]
    """What was written, or the likeliest choice."""
    loglikelihoods: tuple[tuple[float, ...] | None, ...]
    """Of the choices."""


def read_answers(source: Source) -> Answers:
    """Of all items; AimError where they are gone or damaged."""
    try:
        lines = sorted(source.lines(), key=lambda it: (str(it[0]["task"]), int(it[0]["doc_id"])))
        return _answers([line for line, _ in lines], [item_score(v, source.ends) for _, v in lines])
    except DAMAGED as error:
        raise AimError("the results by item cannot be read") from error


def changed_first(before: Answers, after: Answers) -> list[int]:
    """The items, the largest change of the score first. AimError if they are not the same."""
    if before.questions.ids != after.questions.ids:
        raise AimError("not the same items")
    changes = [change(before, after, item) for item in range(len(before.scores))]
    return sorted(range(len(changes)), key=lambda item: -abs(changes[item]))


def change(before: Answers, after: Answers, item: int) -> float:
    """Of the item's score; 0 where one has none."""
    first, second = before.scores[item], after.scores[item]
    return 0.0 if first is None or second is None else second - first


def _answers(own: Sequence[Mapping[str, Any]], scores: Iterable[float | None]) -> Answers:
    choices = [line.get("choices") or None for line in own]
    prompts = tuple(_text(line.get("prompt")) for line in own)
    tasks = [str(line["task"]) for line in own]
    return Answers(
        Questions(
            ids=tuple(f"{line['task']} {line['doc_id']}" for line in own),
            prompts=prompts,
            starts=_starts(tasks, prompts),
            targets=tuple(_text(line.get("target")) for line in own),
            choices=tuple(c and tuple(_text(choice["text"]) for choice in c) for c in choices),
        ),
        scores=tuple(scores),
        texts=tuple(_text(answer(dict(line))) for line in own),
        loglikelihoods=tuple(
            c and tuple(float(choice["loglikelihood"]) for choice in c) for c in choices
        ),
    )


def _starts(tasks: Sequence[str], prompts: Sequence[str]) -> tuple[int, ...]:
    """At the beginning of a line."""
    of = grouped(zip(tasks, prompts, strict=True))
    shared = {task: _shared_lines(own) for task, own in of.items()}
    return tuple(shared[task] for task in tasks)


def _shared_lines(prompts: Iterable[str]) -> int:
    several = sorted(set(prompts))
    return (
        commonprefix(  # noqa: RUF071 - texts, no paths
            [several[0], several[-1]]
        ).rfind("\n")
        + 1
        if len(several) > 1
        else 0
    )


def _text(value: Any) -> str:
    """What was asked several times has several answers."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "\n---\n".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
