"""The model's responses to lm-eval's requests, kept as they come, so that a cut-off run resumes.

The log has one JSON line per response: the request's hash, the response, and a checksum. Each
process writes a file of its own, so that no two append to one, and reads all. lm-eval's own SQLite
store takes 0.5 s for the 1,200 requests of the built-in suite, this one 5 ms; and a line that a
killed process left unfinished is simply passed over.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook, hash_args

from aim_exp.console import Advance, console, print_warning
from aim_exp.errors import AimError, EvaluationError, first_line
from aim_exp.store.lines import checked_line, read_lines

ANSWERING = ("loglikelihood", "loglikelihood_rolling", "generate_until")
"""The methods of lm-eval's models that answer requests."""


class ResponseLog:
    """A mapping from request hashes to responses, kept in `folder`.

    This process's go to `responses.HOST-PID.jsonl`; what others wrote is read once, at first. A
    file with damaged lines is set aside; those in it that are whole stay.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"responses.{socket.gethostname()}-{os.getpid()}.jsonl"
        if own.exists():  # of an earlier process with this number
            content = own.read_bytes()  # a line that is not finished goes
            os.truncate(own, content.rfind(b"\n") + 1)
        for path in _files(folder):
            _mend(path)
        self._responses = kept_responses(folder)
        self._owner = folder.name
        self._file = own.open("a", encoding="utf-8")

    def __enter__(self) -> ResponseLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._responses

    def __getitem__(self, key: str) -> Any:
        return self._responses[key]

    def __setitem__(self, key: str, response: Any) -> None:
        """Keep the first response to a request."""
        if key not in self._responses:
            self._responses[key] = response
            self._file.write(checked_line(self._owner, key, response))
            self._file.flush()


def kept_responses(folder: Path) -> dict[str, Any]:
    """The responses that any process wrote in `folder`, by the request's hash."""
    responses: dict[str, Any] = {}
    for path in _files(folder):
        values = read_lines(path, folder.name).values
        # JSON made a list of the tuple (log-likelihood, is greedy).
        responses |= {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return responses


class RememberingLM:
    """`lm`, asked only what `log` does not hold; `advance(n)` is told of every n items done.

    Generated texts end at `stops` too. Equal requests, as those of an item's equal choices, are
    asked once. What lm-eval's CachingLM does, with one hash per request instead of three.
    """

    def __init__(
        self, lm: LM, log: ResponseLog, advance: Advance, stops: Sequence[str] = ()
    ) -> None:
        self._lm = lm
        self._stops = list(stops)
        self._log = log
        self._items = _OpenItems(advance)
        lm.set_cache_hook(_Hook(log, self._items))

    def __getattr__(self, attribute: str) -> Any:
        """The model's; an answering method remembers."""
        value = getattr(self._lm, attribute)
        return partial(self._answer, attribute, value) if attribute in ANSWERING else value

    def apply_chat_template(
        self, chat: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The chat as a prompt. Raises EvaluationError where the template fails on it."""
        try:
            return self._lm.apply_chat_template(chat, add_generation_prompt)
        except AimError:  # of a model in another process
            raise
        except Exception as error:  # jinja's, its sandbox's, or whatever an expression raises
            raise EvaluationError(
                f"benchmarks.chat_template: the template fails on an item ({first_line(error)}); "
                "name a model with another one in population.chat_template"
            ) from error

    def _answer(
        self, method: str, ask: Callable[[list[Instance]], list[Any]], requests: list[Instance]
    ) -> list[Any]:
        if method == "generate_until" and self._stops:
            requests = [_ending(request, self._stops) for request in requests]
        keys = [hash_args(method, request.args) for request in requests]
        self._items.open(keys, requests)
        for key in keys:
            if key in self._log:
                self._items.close(key)
        missing: dict[Any, int] = {}
        for index, (key, request) in enumerate(zip(keys, requests, strict=True)):
            if _is_sampled(method, request):
                missing[index] = index
            elif key not in self._log:
                missing.setdefault(key, index)
        answers = ask([requests[index] for index in missing.values()]) if missing else []
        new = dict(zip(missing.values(), answers, strict=True))
        for index, answer in new.items():
            self._log[keys[index]] = answer
        self._items.close_all()
        return [new[i] if i in new else self._log[key] for i, key in enumerate(keys)]


def _ending(request: Instance, stops: list[str]) -> Instance:
    """The request with more texts that end its answer."""
    arguments: tuple[Any, ...] = request.args
    context, generation, *rest = arguments
    until = generation.get("until") or []
    until = [until] if isinstance(until, str) else until
    ending = copy(request)
    ending.arguments = (context, {**generation, "until": [*until, *stops]}, *rest)
    return ending


def _is_sampled(method: str, request: Instance) -> bool:
    """Whether the next answer may be another one."""
    arguments: tuple[Any, ...] = request.args
    return method == "generate_until" and arguments[1].get("do_sample", False)


class _OpenItems:
    """The items that wait for responses. An item may need several, and share one with another."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._waiting: Counter[tuple[Any, ...]] = Counter()
        self._items_of: dict[str, list[tuple[Any, ...]]] = {}

    def open(self, keys: Sequence[str], requests: Sequence[Instance]) -> None:
        for key, request in zip(keys, requests, strict=True):
            if request.task_name is None:
                continue
            item = (request.task_name, request.doc_id)
            self._waiting[item] += 1
            self._items_of.setdefault(key, []).append(item)

    def close(self, key: str) -> None:
        """A response has come to one of the requests with this hash."""
        if items := self._items_of.get(key):
            item = items.pop()
            self._waiting[item] -= 1
            if not self._waiting[item]:
                del self._waiting[item]
                self._advance(1)

    def close_all(self) -> None:
        if self._waiting:
            self._advance(len(self._waiting))
        self._waiting.clear()
        self._items_of.clear()


class _Hook(CacheHook):
    """What lm-eval's models call as soon as they have a response."""

    def __init__(self, log: ResponseLog, items: _OpenItems) -> None:
        super().__init__(None)
        self._log = log
        self._items = items

    def add_partial(self, attr: str, req: Iterable[Any], res: Any) -> None:
        key = hash_args(attr, req)
        self._log[key] = res
        self._items.close(key)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("responses*.jsonl"))


def _mend(path: Path) -> None:
    """Set the file aside if it has damaged lines, once those that are whole are in another one."""
    owner = path.parent.name
    lines = read_lines(path, owner)
    if not lines.damaged:
        return
    mark = uuid.uuid4().hex[:12]
    whole = "".join(checked_line(owner, key, value) for key, value in lines.values.items())
    (path.parent / f"responses.{mark}.jsonl").write_text(whole, encoding="utf-8")
    aside = path.rename(path.with_suffix(f".damaged-{mark}"))
    print_warning(
        console,
        f"{path}: {lines.damaged} of its lines are damaged: set aside as {aside.name}; what they "
        "answered is asked again",
    )
