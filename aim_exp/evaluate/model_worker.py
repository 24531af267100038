"""The process that holds one of lm-eval's models for another process, and only answers.

Run as a script, maybe in an environment without this package, with the descriptor of an
inherited socket. What comes over it are pairs: first (lm-eval's name of the model, its
arguments), then (method, arguments). Back go `("partial", ...)` for each response as it
comes, `("cut", message)` for each prompt that lm-eval cuts, and `("result", value)`.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

PR_SET_PDEATHSIG = 1
"""Linux's number for: this signal when the parent dies."""
REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def main(descriptor: int) -> None:
    """Answer until the other side closes the socket."""
    _end_with_parent()
    connection = Connection(descriptor)
    name, arguments = connection.recv()
    lm: Any = get_model(name)(**arguments)
    lm.set_cache_hook(_Hook(connection))
    logging.getLogger("lm_eval").addHandler(_Cuts(connection))
    connection.send(("result", _facts(lm)))
    with suppress(EOFError):
        while True:
            method, arguments = connection.recv()
            connection.send(("result", _answer(lm, method, arguments)))


def _end_with_parent() -> None:
    """A killed parent closes the socket, but a model that is answering would not notice."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _facts(lm: Any) -> dict[str, Any]:
    return {
        "max_length": lm.max_length,
        "max_gen_toks": lm.max_gen_toks,
        "tokenizer_name": lm.tokenizer_name,
        "multimodal": getattr(lm, "MULTIMODAL", False),
    }


def _answer(lm: Any, method: str, arguments: Sequence[Any]) -> Any:
    if method in REQUESTS:
        requests = [Instance(method, {}, tuple(a), i) for i, a in enumerate(arguments)]
        return getattr(lm, method)(requests, disable_tqdm=True)
    if method == "chat_template_args":
        return _use_template(lm, *arguments)
    return getattr(lm, method)(*arguments)


def _use_template(lm: Any, arguments: Mapping[str, Any]) -> None:
    if "chat_template" in arguments and hasattr(lm, "hf_chat_template"):  # vLLM's
        lm.hf_chat_template = arguments["chat_template"]
    else:
        lm.chat_template_args = dict(arguments)


class _Hook:
    """What lm-eval's models call as soon as they have a response."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_partial(self, attr: str, req: Iterable[Any], res: Any) -> None:
        self._connection.send(("partial", attr, req, res))


class _Cuts(logging.Handler):
    def __init__(self, connection: Connection) -> None:
        super().__init__(logging.WARNING)
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "truncat" in message.lower():
            self._connection.send(("cut", message))


if __name__ == "__main__":
    main(int(sys.argv[1]))
