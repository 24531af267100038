"""One of lm-eval's models in another process (`model_worker.py`), as if it were in this one."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from transformers import AutoTokenizer

from aim_exp.checkpoint.layouts import layout
from aim_exp.checkpoint.source import WeightSource
from aim_exp.console import progress
from aim_exp.errors import CheckpointError, EvaluationError
from aim_exp.evaluate.quiet import TRUNCATING_LOGGER
from aim_exp.evaluate.remote.weight_stream import WeightStream

WORKER = Path(__file__).parent / "worker" / "model_worker.py"
POLL = 0.5
"""Seconds between looks at whether the process lives: children of it may keep its socket open."""
GRACE = 10.0
"""Seconds in which it may end by itself."""


class FixedWeightsError(Exception):
    """The process's model cannot take other weights; the text says why."""


class RemoteModel:
    """lm-eval's model `backend`, made with `arguments` by the interpreter `python`, until closed.

    What the process says goes to `log`. `lm` is the model as lm-eval takes it, `holds` names its
    weights. EvaluationError, naming the log, if the process ends too early.
    """

    def __init__(
        self,
        python: str,
        backend: str,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        ours, theirs = Pipe()
        with log.open("w") as output, theirs:
            self._process = subprocess.Popen(
                [python, str(WORKER), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for this process, which then ends that one
            )
        self._link = _Link(self._process, ours, log)
        self._stream = WeightStream(lambda *whole: self._link.call("take_weights", whole))
        self._backend = backend
        self.holds: str | None = None
        try:
            with progress(f"Starting {backend}", None):
                self.lm = RemoteLM(self._link, backend, arguments)
        except BaseException:
            self.close()
            raise

    @property
    def lives(self) -> bool:
        """Whether it can be asked anything."""
        return self._link.is_whole and self._process.poll() is None

    def load(self, weights: WeightSource) -> None:
        """Replace its weights unless it holds these, tensor by tensor.

        FixedWeightsError if it cannot take any. After any other error it must be closed: it may
        hold some of these and some of the last ones.
        """
        if self.holds == weights.key:
            return
        self.holds = None
        try:
            announced = announcement(weights, placed=self._backend != "vllm")
        except CheckpointError as error:  # an architecture that only the process knows
            raise FixedWeightsError(str(error)) from error
        if problem := self._link.call("begin_weights", [announced]):
            raise FixedWeightsError(problem)
        kinds = {name: (dtype, shape) for name, (dtype, shape, _) in announced.items()}
        self._stream.begin(kinds)
        weights.load(self._stream)
        self._stream.end()
        self._link.call("end_weights", [])
        self.holds = weights.key

    def close(self) -> None:
        """End the process."""
        self._link.close()
        self._stream.close()
        _end(self._process)


def announcement(
    weights: WeightSource, *, placed: bool
) -> dict[str, tuple[str, tuple[int, ...], Any]]:
    """By name: dtype, shape and, if `placed`, the place in transformers' model."""
    tensors = weights.layout.tensors
    places = layout(weights.layout, weights.layouts).places if placed else dict.fromkeys(tensors)
    return {
        name: (
            weights.dtype if tensors[name].is_floating else tensors[name].dtype,
            tensors[name].shape,
            place and astuple(place),
        )
        for name, place in places.items()
    }


class RemoteLM(LM):
    """lm-eval's interface; every call goes over the link."""

    def __init__(self, link: _Link, backend: str, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self._link = link
        facts = link.call(backend, arguments)
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
        return self._link.call("apply_chat_template", [chat_history, add_generation_prompt])

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
            self._link.call("chat_template_args", [arguments])
            self._chat_template_args = arguments

    def _responses(self, method: str, requests: Sequence[Instance]) -> Any:
        return self._link.call(method, [request.args for request in requests], self._tell)

    def _tell(self, kind: str, *content: Any) -> None:
        """What comes before the responses, as the model itself would tell it."""
        if kind == "cut":
            logging.getLogger(TRUNCATING_LOGGER).warning(content[0])
        elif not self.MULTIMODAL:  # lm-eval would name it by the prompt, without the images
            self.cache_hook.add_partial(*content)


class _Link:
    """The socket to the process, which may die at any time."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection, log: Path) -> None:
        self._process = process
        self._connection = connection
        self._log = log
        self.is_whole = True
        """Whether every call has had its result, so that the next one is not given another's."""

    def call(
        self, method: str, arguments: Any, tell: Callable[..., None] = lambda *content: None
    ) -> Any:
        """The result; `tell` is given what comes before it."""
        self.is_whole = False
        self._send((method, arguments))
        while True:
            kind, *content = self._receive()
            if kind == "result":
                self.is_whole = True
                return content[0]
            tell(kind, *content)

    def close(self) -> None:
        self.is_whole = False
        self._connection.close()

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._ended() from error

    def _receive(self) -> Any:
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
