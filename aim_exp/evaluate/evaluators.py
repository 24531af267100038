"""Evaluators: how a model's responses are made, in this process or in another environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aim_exp.console import console, print_warning
from aim_exp.store.stage_spec import canonical_json

if TYPE_CHECKING:
    from aim_exp.checkpoint.source import WeightSource
    from aim_exp.evaluate.harness import Harness
    from aim_exp.evaluate.remote.model import RemoteModel

BACKENDS: Mapping[str, tuple[str, ...]] = {
    "hf": ("lm_eval", "transformers"),
    "hf-multimodal": ("lm_eval", "transformers"),
    "vllm": ("lm_eval", "vllm"),
}
"""lm-eval's names of its models, and the packages whose versions decide their responses."""
FIXING = frozenset(
    "quantization quantization_config load_in_4bit load_in_8bit gptqmodel autogptq gguf_file peft "
    "delta lora_local_path load_format pipeline_parallel_size data_parallel_size "
    "worker_extension_cls".split()
)
"""Arguments of theirs with which a model that is there takes no other weights."""
ON_A_PROCESSOR = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={1 << 40}",
}
"""Variables of a process there. vLLM's engine is in the process itself: two more of its own take
as long to start, and wait for each other at full speed. Memory that is freed is kept for the next
model: the system's fresh pages cost as much as the copies into them."""
OWN_ARGUMENTS = frozenset({"pretrained", "dtype", "device", "batch_size", "max_length"})
"""Arguments of lm-eval's models that have a key of their own."""


class Evaluator(Protocol):
    """What the group `evaluator` configures."""

    @property
    def needs_checkpoint(self) -> bool:
        """Whether each model is scored through a temporary checkpoint on disk."""
        ...

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

    batch_size: int | None
    max_length: int | None

    @property
    def needs_checkpoint(self) -> bool:
        """The weights in memory are scored."""
        return False

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
    """A model of lm-eval's in a process of its own, which stays for the models of a sweep.

    Prompts are made and answers are scored here; there they are only answered, so that the
    other environment needs lm-eval, the `backend` and nothing of this project. `python` is
    its interpreter (None: this one). `batch_size` may be `auto`. `model_args` are further
    arguments of lm-eval's model, `resources` those of them that change no response. Weights
    are streamed into it; where they cannot be, each model is read from a temporary checkpoint.
    """

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
        where, environment = f"evaluator.python={self._interpreter}", self._environment
        if environment.failure:
            return [*problems, f"{where}: cannot be run ({environment.failure})"]
        for package, there in environment.versions.items():
            if there is None:
                problems.append(
                    f"{where}: has no {package}; install it there, or name the interpreter of an "
                    "environment that has it"
                )
        there, here = environment.versions["lm_eval"], version("lm_eval")
        if there not in (None, here):
            problems.append(
                f"{where}: has lm_eval {there}, not {here}; install lm-eval=={here} there"
            )
        return problems

    def spec(self) -> dict[str, Any]:
        """Also the versions in the other environment; not the resources."""
        return {
            "evaluator": "process",
            "backend": self.backend,
            "max_length": self.max_length,
            "model_args": self.model_args or {},
            "versions": self._environment.versions,
        }

    @contextmanager
    def harness(self, weights: WeightSource, folder: Path, log: Path) -> Iterator[Harness]:
        """Round the process, which stays for the next models of its kind."""
        from aim_exp.evaluate.harness import Harness

        model, fixed = self._model(weights, folder / "scratch", log)
        note = f"{fixed}: scored through a temporary checkpoint and a process of its own"
        yield Harness(model.lm, [note] if fixed else [])

    def _model(
        self, weights: WeightSource, scratch: Path, log: Path
    ) -> tuple[RemoteModel, str | None]:
        """The process with these weights; why it takes no others, or None."""
        from aim_exp.evaluate.remote.model import FixedWeightsError

        home = weights.home
        kind = (
            canonical_json(self.arguments(Path(), weights.dtype, weights.device)),
            (self._interpreter, self.backend, weights.device),
            (home.path, home.identity, weights.vocabulary, bool(weights.layout.head)),
        )
        fixed = self._fixed_by or _fixed.get(kind)
        if fixed is None:
            try:
                return self._refilled(kind, weights, scratch, log), None
            except FixedWeightsError as error:
                fixed = _fixed[kind] = f"evaluator.backend={self.backend}: {error}"
        make = partial(self._start, weights, weights.write, scratch, log)
        return _living((*kind, weights.key), make), fixed

    def _refilled(
        self, kind: Hashable, weights: WeightSource, scratch: Path, log: Path
    ) -> RemoteModel:
        """The process of this kind, started on zeros; a broken stream leaves none that answers."""
        from aim_exp.checkpoint.live import close_model
        from aim_exp.evaluate.remote.model import FixedWeightsError

        model = _living(kind, partial(self._start, weights, weights.write_hollow, scratch, log))
        try:
            model.load(weights)
        except FixedWeightsError:
            raise
        except BaseException:
            if model.lives:
                print_warning(console, "evaluator: weights came in part; the process is ended")
            close_model()
            raise
        return model

    def _start(
        self, weights: WeightSource, write: Callable[[Path], None], scratch: Path, log: Path
    ) -> RemoteModel:
        """A process on the checkpoint that `write` makes, for as long as it reads it."""
        from aim_exp.evaluate.remote.model import RemoteModel

        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        try:
            write(scratch / "model")
            arguments = self.arguments(scratch / "model", weights.dtype, weights.device)
            environment = self.environment(weights.device)
            return RemoteModel(self._interpreter, self.backend, arguments, environment, log)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @property
    def needs_checkpoint(self) -> bool:
        """By its settings."""
        return self._fixed_by is not None

    @property
    def _fixed_by(self) -> str | None:
        """The setting by which the weights of a process cannot be replaced."""
        if self.backend == "vllm" and not self._environment.reloads:
            return f"evaluator.python={self._interpreter}: its vllm is too old to take weights"
        for key in ("model_args", "resources"):
            for name, value in (getattr(self, key) or {}).items():
                one = value == 1 and value is not True  # of a size in parallel
                if name in FIXING and value not in (None, False, "auto") and not one:
                    return f"evaluator.{key}.{name}={value}"
        return None

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
        kind, _, index = device.partition(":")
        if kind == "cpu":
            return ON_A_PROCESSOR
        return {"CUDA_VISIBLE_DEVICES": index} if self.backend == "vllm" and index else {}

    @property
    def _interpreter(self) -> str:
        return self.python or sys.executable

    @property
    def _environment(self) -> Environment:
        return _environment(self._interpreter, BACKENDS[self.backend])


_fixed: dict[Hashable, str] = {}
"""Why a kind of process takes no weights, where only it could tell."""


def _living(key: Hashable, make: Callable[[], RemoteModel]) -> RemoteModel:
    """The only model, made again if its process has ended."""
    from aim_exp.checkpoint.live import close_model, only_model

    if not only_model(key, make).lives:
        close_model()
    return only_model(key, make)


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


@dataclass(frozen=True)
class Environment:
    """What an interpreter has: packages' versions (None: not there), and a vLLM that reloads.

    `failure` says why it cannot be asked.
    """

    versions: dict[str, str | None]
    reloads: bool
    failure: str = ""


@cache
def _environment(python: str, packages: tuple[str, ...]) -> Environment:
    """Packages are modules: a distribution may have another name."""
    try:
        done = subprocess.run(
            [python, "-c", ENVIRONMENT, *packages],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return Environment(**json.loads(done.stdout))
    except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
        return Environment({}, reloads=False, failure=str(error))


ENVIRONMENT = """
import json, sys
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

def known(name):
    spec = find_spec(name)
    names = packages_distributions().get(name, []) if spec and spec.origin else []
    return version(names[0]) if names else None

versions = {name: known(name) for name in sys.argv[1:]}
vllm = find_spec("vllm") if versions.get("vllm") else None
folder = Path(vllm.origin).parent / "model_executor" / "model_loader" / "reload" if vllm else None
print(json.dumps({"versions": versions, "reloads": bool(folder and folder.is_dir())}))
"""
