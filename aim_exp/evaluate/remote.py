"""One of lm-eval's models in another process (`model_worker.py`), as if it were in this one."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from transformers import AutoTokenizer

from aim_exp.console import progress
from aim_exp.errors import EvaluationError
from aim_exp.evaluate.quiet import TRUNCATING_LOGGER

WORKER = Path(__file__).with_name("model_worker.py")
POLL = 0.5
"""Seconds between looks at whether the process lives: children of it may keep its socket open."""
GRACE = 10.0
"""Seconds in which it may end by itself."""


@contextmanager
def remote_model(
    python: str,
    backend: str,
    arguments: Mapping[str, Any],
    environment: Mapping[str, str],
    log: Path,
) -> Iterator[RemoteLM]:
    """lm-eval's model `backend`, made with `arguments` by the interpreter `python`.

    What the process says goes to `log`. EvaluationError, naming the log, if it ends too early.
    """
    ours, theirs = Pipe()
    command = [python, str(WORKER), str(theirs.fileno())]
    with ours, log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            # Not the worker's own folder on the path: its neighbours have the names of packages.
            env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
            start_new_session=True,  # Ctrl-C is for this process, which then ends that one
        )
        theirs.close()
        try:
            with progress(f"Starting {backend}", None):
                model = RemoteLM(_Link(process, ours, log), backend, arguments)
            yield model
        finally:
            _end(process)


class RemoteLM(LM):
    """lm-eval's interface; every call goes over the link."""

    def __init__(self, link: _Link, backend: str, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self._link = link
        facts = self._call(backend, arguments)
        self.max_length: int = facts["max_length"]
        self.max_gen_toks: int = facts["max_gen_toks"]
        self.MULTIMODAL: bool = facts["multimodal"]
        self._tokenizer_name: str = facts["tokenizer_name"]
        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            arguments["pretrained"], trust_remote_code=False
        )
        self._chat_template_args: Mapping[str, Any] = {}

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is the greedy one."""
        return self._responses("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-likelihood of each text."""
        return self._responses("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """An answer to each prompt."""
        return self._responses("generate_until", requests)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The chat as a prompt."""
        return self._call("apply_chat_template", [chat_history, add_generation_prompt])

    @property
    def tokenizer_name(self) -> str:
        """What names the template in lm-eval's own cache."""
        return self._tokenizer_name

    @property
    def chat_template_args(self) -> Mapping[str, Any]:
        """Which template the tokenizer uses."""
        return self._chat_template_args

    @chat_template_args.setter
    def chat_template_args(self, arguments: Mapping[str, Any]) -> None:
        if arguments != self._chat_template_args:
            self._call("chat_template_args", [arguments])
            self._chat_template_args = arguments

    def _responses(self, method: str, requests: Sequence[Instance]) -> Any:
        return self._call(method, [request.args for request in requests])

    def _call(self, method: str, arguments: Any) -> Any:
        """The result; what comes before it is told as the model itself would tell it."""
        self._link.send((method, arguments))
        while True:
            kind, *content = self._link.receive()
            if kind == "result":
                return content[0]
            if kind == "partial":
                if not self.MULTIMODAL:  # lm-eval would name it by the prompt, without the images
                    self.cache_hook.add_partial(*content)
            else:
                logging.getLogger(TRUNCATING_LOGGER).warning(content[0])


class _Link:
    """The socket to the process, which may die at any time."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection, log: Path) -> None:
        self._process = process
        self._connection = connection
        self._log = log

    def send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._ended() from error

    def receive(self) -> Any:
        try:
            while not self._connection.poll(POLL):
                if self._process.poll() is not None:
                    raise EOFError
            return self._connection.recv()
        except (OSError, EOFError) as error:
            raise self._ended() from error

    def _ended(self) -> EvaluationError:
        code = self._process.wait()
        how = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
        lines = self._log.read_text(errors="replace").split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        return EvaluationError(
            f"evaluator: the process of the model {how} ({reason}); see {self._log}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and whatever it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(GRACE)
    process.wait()
