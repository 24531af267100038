"""LoRA adapters as models: base's tensors, plus scale B A where a module was adapted.

Nothing is written out but settings and tokenizer: base's, with what lies beside the adapter in the
place of base's file of that name.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from aim_exp.checkpoint.files import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    TOKENIZER_FILES,
    copy_companions,
    read_json,
    write_json,
)
from aim_exp.checkpoint.layouts import layout
from aim_exp.checkpoint.matching import with_head
from aim_exp.checkpoint.names import HEADS, INPUT_EMBEDDINGS
from aim_exp.checkpoint.reader import (
    TIED,
    Checkpoint,
    LowRank,
    TensorInfo,
    ending,
    equal_values,
)
from aim_exp.checkpoint.vocabulary import resized
from aim_exp.errors import CheckpointError, first_line
from aim_exp.store.files import whole_folder
from aim_exp.types import ModelRef

PREFIX = "base_model.model."
"""What peft puts before each name."""
FACTORS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
"""How the names of what belongs to a module end."""
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Beginnings of training (`init_lora_weights`) that leave base as it is."""
UNLIKE = ("alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",
          "lora_bias", "megatron_config", "monteclora_config", "target_parameters",
          "trainable_token_indices", "use_bdlora", "use_qalora")  # fmt: skip
"""Settings that make more, or something else, of B and A than scale B A."""


class AdaptedCheckpoint(Checkpoint):
    """`base` with the adapter in the folder `adapter`; `folder` holds the companion files.

    Raises CheckpointError that names adapter, module and reason for what is no plain LoRA or DoRA,
    or does not fit base.
    """

    def __init__(self, base: Checkpoint, adapter: Path, folder: Path, label: str) -> None:
        super().__init__(folder, label)
        self._base = base
        self._adapter = adapter

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Base's headers with what the adapter changes.

        Where base's output head is its embedding, and the adapter holds one of them whole, the head
        is a tensor of its own, as in training.
        """
        settings = _settings(self._adapter, self.label)
        try:
            return self._merged_with(settings)
        except CheckpointError:
            raise
        except (AttributeError, TypeError, ValueError, ArithmeticError, re.error) as error:
            path = self._adapter / ADAPTER_CONFIG
            raise CheckpointError(f"{self.label}: {path}: {first_line(error)}") from error

    def _merged_with(self, settings: Mapping[str, Any]) -> Mapping[str, TensorInfo]:
        whole, factors = self._parts()
        base = self._with_own_head(whole, factors, settings)
        tensors = dict(base.tensors)
        for module, info in whole.items():
            name = self._tensor_of(module, base)
            self._check(module, info.shape[1:] == tensors[name].shape[1:], "another shape")
            tensors[name] = info
        for module, parts in factors.items():
            name = self._tensor_of(f"{module}.weight", base)
            tensors[name] = self._updated(module, tensors[name], parts, settings)
        head, embedding = (ending(tensors, ends) for ends in (HEADS, INPUT_EMBEDDINGS))
        parted = base is not self._base
        if parted and head and embedding and equal_values(tensors[head], tensors[embedding]):
            del tensors[head]
        return tensors

    def _parts(self) -> tuple[dict[str, TensorInfo], dict[str, dict[str, TensorInfo]]]:
        """What stands for a whole tensor, by its name, and the factors, by module."""
        whole: dict[str, TensorInfo] = {}
        factors: dict[str, dict[str, TensorInfo]] = {}
        for stored, info in self._headers(self._adapter / ADAPTER_FILE, None):
            name = stored.removeprefix(PREFIX)
            end = next((end for end in FACTORS if name.endswith(f".{end}")), None)
            if end:
                factors.setdefault(name.removesuffix(f".{end}"), {})[FACTORS[end]] = info
            else:
                # Beside the factors of an embedding peft saves what they are added to.
                whole[name.replace(".base_layer.", ".")] = info
        return whole, factors

    def _with_own_head(
        self, whole: Collection[str], factors: Collection[str], settings: Mapping[str, Any]
    ) -> Checkpoint:
        """Base; where the adapter parts head and embedding, with both."""
        ends = (*HEADS, *INPUT_EMBEDDINGS)
        tied = self._base.head is None and not settings.get("ensure_weight_tying")
        for module in factors if tied else ():
            parted = f"{module}.weight".endswith(ends)
            self._check(module, not parted, f"base's head is its embedding ({TIED})")
        held = [name for name in whole if name.endswith(ends)]
        if not tied or not held:
            return self._base
        return with_head(self._base, next((n for n in held if n.endswith(HEADS)), HEADS[0]))

    def _tensor_of(self, module: str, base: Checkpoint) -> str:
        """Base's tensor for a parameter of transformers' model, which may be called otherwise."""
        name = module if module in base.tensors else self._names.get(module, "")
        self._check(module, bool(name), "base has no such module")
        return name

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """Base's tensors by the parameters of transformers' model."""
        places = layout(self._base).places
        return {place.parameter: name for name, place in places.items() if place.expert is None}

    def _updated(
        self,
        module: str,
        info: TensorInfo,
        parts: Mapping[str, TensorInfo],
        settings: Mapping[str, Any],
    ) -> TensorInfo:
        missing = " and ".join(sorted({"a", "b"} - parts.keys())).upper()
        self._check(module, not missing, f"{missing} is missing")
        a, b, magnitude = parts["a"], parts["b"], parts.get("magnitude")
        dora = bool(settings.get("use_dora"))
        self._check(module, dora == bool(magnitude), f"use_dora={dora}, unlike its tensors")
        embedding = "lora_embedding" in a.stored
        self._check(module, not (embedding and magnitude), "DoRA of an embedding is not supported")
        rank = int(_of_module(settings, "rank_pattern", module, settings.get("r")))
        alpha = float(_of_module(settings, "alpha_pattern", module, settings.get("lora_alpha")))
        transposed = embedding or bool(settings.get("fan_in_fan_out"))
        shape = info.shape[::-1] if transposed else info.shape
        fits = (*b.shape, *a.shape) == (shape[0], rank, rank, *shape[1:])
        self._check(
            module,
            fits,
            f"B {list(b.shape)} and A {list(a.shape)} of rank {rank} do not fit {list(shape)}",
        )
        scale = alpha / rank**0.5 if settings.get("use_rslora") else alpha / rank
        return replace(info, update=LowRank(a, b, scale, transposed, magnitude))

    def _check(self, module: str, holds: bool, reason: str) -> None:
        if not holds:
            raise CheckpointError(
                f"{self.label}: adapter {self._adapter}: {module}: {reason}; merge it with peft "
                "first (merge_and_unload, save_pretrained), or train another"
            )


def is_adapter(files: Collection[str]) -> bool:
    """Whether these files of a folder are an adapter's: beside model weights it is none."""
    weights = (SINGLE_FILE, INDEX_FILE)
    return ADAPTER_CONFIG in files and not any(
        name in weights or name.startswith("pytorch_model") for name in files
    )


def open_model(model: ModelRef, label: str | None = None) -> Checkpoint:
    """The model's tensors, whatever it is; it is on disk. `label` is its name unless given."""
    if model.adapter and model.adapts:
        base = open_model(model.adapts)
        return AdaptedCheckpoint(base, model.adapter.path, model.path, label or model.name)
    return Checkpoint(model.path, label or model.name)


def write_adapted_companions(model: ModelRef) -> None:
    """Make the folder of an adapter's settings and tokenizer, unless it is there.

    With as many rows as its embedding has. Raises CheckpointError for an adapter that is refused.
    """
    assert model.adapter
    assert model.adapts
    tensors, folder = open_model(model).tensors, model.path
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as partial:
        copy_companions(model.adapts.path, partial)
        copy_companions(model.adapter.path, partial, TOKENIZER_FILES)
        base = open_model(model.adapts)
        if base.embedding:
            before, after = (each[base.embedding].shape[0] for each in (base.tensors, tensors))
            config = resized(base.config, before, after)
            write_json(partial / CONFIG_FILE, config)


def named_base(model: ModelRef) -> tuple[str, str | None]:
    """The base, and its revision, that an adapter on disk says it was trained on."""
    assert model.adapter
    settings = read_json(model.adapter.path / ADAPTER_CONFIG, model.name)
    revision = settings.get("revision")
    return str(settings.get("base_model_name_or_path") or ""), str(revision) if revision else None


def _settings(folder: Path, label: str) -> Mapping[str, Any]:
    """An adapter's settings. CheckpointError where it is none of those that are read here."""
    settings = read_json(folder / ADAPTER_CONFIG, label)
    reason = None
    if settings.get("peft_type") != "LORA":
        reason = f"peft_type is {settings.get('peft_type')}, not LORA"
    elif settings.get("init_lora_weights", True) not in STARTS:
        reason = (
            f"init_lora_weights={settings['init_lora_weights']} changed base before training; save "
            "it with path_initial_model_for_weight_conversion"
        )
    elif unlike := [key for key in UNLIKE if settings.get(key)]:
        reason = f"{unlike[0]}={settings[unlike[0]]} is not supported"
    elif not all(isinstance(settings.get(key), int | float) for key in ("r", "lora_alpha")):
        reason = "r and lora_alpha must be numbers"
    elif not (folder / ADAPTER_FILE).is_file():
        reason = f"{ADAPTER_FILE} is not there; load it with peft and save_pretrained"
    if reason:
        raise CheckpointError(f"{label}: adapter {folder}: {reason}")
    return settings


def _of_module(settings: Mapping[str, Any], table: str, module: str, default: Any) -> Any:
    """The value of the first pattern that is like the end of a module's name, as in peft."""
    patterns: Mapping[str, Any] = settings.get(table) or {}
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
