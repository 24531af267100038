"""Evaluators: how a model's responses are made, in this process or in another environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from aim_exp.checkpoint.source import WeightSource
    from aim_exp.evaluate.harness import Harness

BACKENDS: Mapping[str, tuple[str, ...]] = {
    "hf": ("lm_eval", "transformers"),
    "hf-multimodal": ("lm_eval", "transformers"),
    "vllm": ("lm_eval", "vllm"),
}
"""lm-eval's names of its models, and the packages whose versions decide their responses."""
OWN_ARGUMENTS = frozenset({"pretrained", "dtype", "device", "batch_size", "max_length"})
"""Arguments of lm-eval's models that have a key of their own."""


class Evaluator(Protocol):
    """What the group `evaluator` configures.

    `needs_checkpoint`: it scores a temporary checkpoint on disk, not the weights in memory.
    """

    needs_checkpoint: ClassVar[bool]

    def problems(self) -> list[str]:
        """What is wrong with the settings, `key=value: why; fix` each."""
        ...

    def spec(self) -> dict[str, Any]:
        """What the responses depend on."""
        ...

    def harness(
        self, weights: WeightSource, folder: Path, log: Path
    ) -> AbstractContextManager[Harness]:
        """A harness that scores the model, as long as the context lasts.

        `folder` is the one of the model's responses, and may hold temporary files;
        `log` takes what another process says.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class HfEvaluator:
    """transformers in this process, through lm-eval's HFLM.

    `batch_size` is how many prompts are answered at once, None for 64, or more if the model is
    very small (`hf.SMALL_CACHE`); `max_length` the most tokens of prompt and answer together,
    None for the model's own limit. A longer prompt loses its beginning.
    """

    needs_checkpoint: ClassVar[bool] = False
    batch_size: int | None
    max_length: int | None

    def problems(self) -> list[str]:
        """A size that is none."""
        return _size_problems(batch_size=self.batch_size, max_length=self.max_length)

    def spec(self) -> dict[str, Any]:
        """Not the batch size."""
        return {"evaluator": "hf", "max_length": self.max_length}

    @contextmanager
    def harness(self, weights: WeightSource, folder: Path, log: Path) -> Iterator[Harness]:
        """Round the live model, which outlives the context."""
        from aim_exp.evaluate.harness import Harness

        live = weights.live()
        yield Harness.in_memory(
            live.model, live.tokenizer, batch_size=self.batch_size, max_length=self.max_length
        )


@dataclass(frozen=True, kw_only=True)
class ProcessEvaluator:
    """A model of lm-eval's in a process of its own, on a temporary checkpoint.

    Prompts are made and answers are scored here; there they are only answered, so that the
    other environment needs lm-eval, the `backend` and nothing of this project. `python` is
    its interpreter (None: this one). `batch_size` may be `auto`. `model_args` are further
    arguments of lm-eval's model, `resources` those of them that change no response.
    """

    needs_checkpoint: ClassVar[bool] = True
    backend: str
    python: str | None
    batch_size: Any
    max_length: int | None
    model_args: Any
    resources: Any

    def problems(self) -> list[str]:
        """Also an interpreter that does not run, or lacks a package."""
        if self.backend not in BACKENDS:
            known = ", ".join(BACKENDS)
            return [f"evaluator.backend={self.backend}: must be one of {known}"]
        problems = _size_problems(max_length=self.max_length)
        if self.batch_size != "auto":
            problems += _size_problems(batch_size=self.batch_size)
        for key in ("model_args", "resources"):
            problems += _argument_problems(f"evaluator.{key}", getattr(self, key))
        versions = self._versions
        if isinstance(versions, str):
            problems.append(f"evaluator.python={self._interpreter}: cannot be run ({versions})")
        else:
            problems += [
                f"evaluator.python={self._interpreter}: has no {package}; install it there"
                for package, version in versions.items()
                if version is None
            ]
        return problems

    def spec(self) -> dict[str, Any]:
        """Also the versions in the other environment; not the resources."""
        return {
            "evaluator": "process",
            "backend": self.backend,
            "max_length": self.max_length,
            "model_args": self.model_args or {},
            "versions": self._versions,
        }

    @contextmanager
    def harness(self, weights: WeightSource, folder: Path, log: Path) -> Iterator[Harness]:
        """Round the process; it and the checkpoint end with the context."""
        from aim_exp.checkpoint.live import forget_live_model
        from aim_exp.evaluate.harness import Harness
        from aim_exp.evaluate.remote import remote_model

        scratch = folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        try:
            forget_live_model()  # the device's memory is the other process's now
            weights.write(scratch / "model")
            arguments = self.arguments(scratch / "model", weights.dtype, weights.device)
            environment = self.environment(weights.device)
            python = self._interpreter
            with remote_model(python, self.backend, arguments, environment, log) as model:
                yield Harness(model)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def arguments(self, folder: Path, dtype: str, device: str) -> dict[str, Any]:
        """What lm-eval's model is made with."""
        placed = {} if self.backend == "vllm" else {"device": device}
        return {
            "pretrained": str(folder),
            "dtype": dtype,
            "batch_size": self.batch_size,
            "max_length": self.max_length,
            **placed,
            **(self.model_args or {}),
            **(self.resources or {}),
        }

    def environment(self, device: str) -> dict[str, str]:
        """Variables of the process beside this one's; vLLM takes one GPU of several so."""
        _, _, index = device.partition(":")
        return {"CUDA_VISIBLE_DEVICES": index} if self.backend == "vllm" and index else {}

    @property
    def _interpreter(self) -> str:
        return self.python or sys.executable

    @property
    def _versions(self) -> dict[str, str | None] | str:
        return _versions(self._interpreter, BACKENDS[self.backend])


def _size_problems(**sizes: Any) -> list[str]:
    return [
        f"evaluator.{key}={value}: must be a whole number, at least 1"
        for key, value in sizes.items()
        if value is not None and (not isinstance(value, int) or value < 1)
    ]


def _argument_problems(key: str, table: Any) -> list[str]:
    if not isinstance(table, Mapping | None):
        return [f"{key}={table}: must be a table {{argument: value}}, or null"]
    return [
        f"{key}.{name}: is set by this program; leave it out"
        for name in sorted(OWN_ARGUMENTS & set(table or {}))
    ]


@cache
def _versions(python: str, packages: tuple[str, ...]) -> dict[str, str | None] | str:
    """The packages' versions in an environment (None: not there), or why it cannot be asked."""
    code = (
        "import json, sys\n"
        "from importlib.metadata import PackageNotFoundError, version\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = version(name)\n"
        "    except PackageNotFoundError: found[name] = None\n"
        "print(json.dumps(found))\n"
    )
    try:
        done = subprocess.run(
            [python, "-c", code, *packages], capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return str(error)
