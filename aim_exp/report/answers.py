"""What two models answered to the same items, side by side: for the page and for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from aim_exp.errors import AimError
from aim_exp.report.frames import answer, item_score
from aim_exp.report.grouped import grouped
from aim_exp.report.items import DAMAGED, Source


@dataclass(frozen=True)
class Question:
    """What was asked."""

    id: str
    """Task and number: `gsm8k 12`."""
    prompt: str
    start: int
    """Where in it the item's own part begins: after what all prompts of its task have in common."""
    target: str
    choices: tuple[str, ...] | None


@dataclass(frozen=True)
class Answer:
    """What a model made of it."""

    score: float | None
    """On the scale of the benchmark's."""
    text: str
    """What was written, or the likeliest choice."""
    loglikelihoods: tuple[float, ...] | None
    """Of the choices."""

    def change(self, after: Answer) -> float:
        """Of the score; 0 where one has none."""
        if self.score is None or after.score is None:
            return 0.0
        return after.score - self.score


@dataclass(frozen=True)
class Answers:
    """Of a model to all items of a benchmark, by task and number."""

    questions: tuple[Question, ...]
    given: tuple[Answer, ...]


def read_answers(source: Source) -> Answers:
    """Of all items; AimError where they are gone or damaged."""
    try:
        lines = sorted(source.lines(), key=lambda it: (str(it[0]["task"]), int(it[0]["doc_id"])))
        prompts = grouped((line["task"], _text(line.get("prompt"))) for line, _ in lines)
        starts = {task: _shared_lines(own) for task, own in prompts.items()}
        both = [_answer(line, value, source.ends, starts[line["task"]]) for line, value in lines]
    except DAMAGED as error:
        raise AimError("the results by item cannot be read") from error
    return Answers(tuple(question for question, _ in both), tuple(given for _, given in both))


def changed_first(before: Answers, after: Answers) -> list[int]:
    """The items, the largest change of the score first. AimError if they are not the same."""
    if [each.id for each in before.questions] != [each.id for each in after.questions]:
        raise AimError("not the same items")
    changes = [a.change(b) for a, b in zip(before.given, after.given, strict=True)]
    return sorted(range(len(changes)), key=lambda item: -abs(changes[item]))


def _answer(
    line: Mapping[str, Any], value: Any, ends: tuple[float, float], start: int
) -> tuple[Question, Answer]:
    choices = line.get("choices") or None
    question = Question(
        id=f"{line['task']} {line['doc_id']}",
        prompt=_text(line.get("prompt")),
        start=start,
        target=_text(line.get("target")),
        choices=choices and tuple(_text(choice["text"]) for choice in choices),
    )
    return question, Answer(
        score=item_score(value, ends),
        text=_text(answer(dict(line))),
        loglikelihoods=choices and tuple(float(each["loglikelihood"]) for each in choices),
    )


def _shared_lines(prompts: Iterable[str]) -> int:
    """The end of the last line that all begin with."""
    several = sorted(set(prompts))
    if len(several) < 2:
        return 0
    shared = commonprefix([several[0], several[-1]])  # noqa: RUF071 - texts, no paths
    return shared.rfind("\n") + 1


def _text(value: Any) -> str:
    """What was asked several times has several answers."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "\n---\n".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
