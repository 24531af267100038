"""What stands beside a model's weights and decides what they compute: settings and tokenizer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aim_exp.checkpoint.files import (
    ADAPTER_CONFIG,
    CONFIG_FILE,
    GENERATION_CONFIG,
    json_if_there,
    tokenizer_files,
)
from aim_exp.checkpoint.reader import TIED, Checkpoint

NOTES = {"_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype",
         "use_cache", "_from_model_config", "architectures", TIED}  # fmt: skip
"""Settings that change no number: where a model came from, and what the run decides itself.

Whether the output head is the embedding again is what the tensors say, and so is the architecture.
"""
OF_TOKENS = {"vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"}
"""Settings that go with the vocabulary, which a merge settles by a rule of its own."""


def differ(base: Checkpoint, other: Checkpoint) -> bool:
    """Whether `other` computes, generates or tokenises unlike base, whatever the weights."""
    return (
        _settings(base.config) != _settings(other.config)
        or _generation(base.folder) != _generation(other.folder)
        or tokenizer_files(base.folder) != tokenizer_files(other.folder)
    )


def companions_digest(folder: Path) -> str:
    """Of what `differ` compares, so that equal weights beside it answer alike; in hex."""
    settings = _settings(json_if_there(folder / CONFIG_FILE, folder.name))
    files = {
        name: hashlib.sha256(content).hexdigest()
        for name, content in tokenizer_files(folder).items()
    }
    content = json.dumps([settings, _generation(folder), files], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def config_warnings(base: Checkpoint, experts: Sequence[Checkpoint]) -> list[str]:
    """A warning where an expert was trained with other settings than base, which the merge has."""
    ours = _settings(base.text_config)
    return [
        f"{expert.label}: {key} is {theirs.get(key)}, base's is {ours.get(key)}; the "
        "merge has base's"
        for expert in experts
        for theirs in [_settings(expert.text_config)]
        for key in sorted((ours.keys() | theirs.keys()) - OF_TOKENS - {"text_config"})
        if ours.get(key) != theirs.get(key)
    ]


def adapter_warnings(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """A warning for an adapter that a training run has left beside whole weights."""
    return [
        f"{checkpoint.label}: {checkpoint.folder / ADAPTER_CONFIG} lies beside whole weights; the "
        "adapter is not loaded and not copied, though transformers would load it: take it away"
        for checkpoint in checkpoints
        if (checkpoint.folder / ADAPTER_CONFIG).is_file()
    ]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without notes; nested ones too."""
    return {
        key: _settings(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in NOTES
    }


def _generation(folder: Path) -> dict[str, Any]:
    return _settings(json_if_there(folder / GENERATION_CONFIG, folder.name))
