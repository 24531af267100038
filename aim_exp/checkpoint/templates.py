"""Chat templates: which of a tokenizer's a model is asked with, and how a saved model gets it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from aim_exp.checkpoint.files import TOKENIZER_CONFIG
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.vocabulary import load_tokenizer
from aim_exp.errors import AimError, CheckpointError
from aim_exp.types import ModelRef

TEMPLATE_FILE = "chat_template.jinja"


def chat_template(model: ModelRef, wanted: bool | str) -> str:
    """The text of a model's template called `wanted`; True takes the tokenizer's usual one.

    Raises CheckpointError where there is none.
    """
    name = wanted if isinstance(wanted, str) else "default"
    templates = load_tokenizer(Checkpoint(model.path, model.name)).chat_template or {}
    if isinstance(templates, str):
        templates = {"default": templates}
    if name not in templates:
        there = ", ".join(templates) or "none"
        raise CheckpointError(
            f"benchmarks.chat_template={str(wanted).lower()}: the tokenizer of {model.name} has no "
            f"such chat template ({there}); name a model that has one in population.chat_template"
        )
    return templates[name]


def template_problems(models: Iterable[ModelRef], wanted: bool | str) -> list[str]:
    """Which models have no such template, of those that are on disk."""
    found = []
    for model in dict.fromkeys(models):
        if model.path.is_dir():
            try:
                chat_template(model, wanted)
            except AimError as error:
                found.append(str(error))
    return found


def write_chat_template(folder: Path, text: str) -> None:
    """Make `text` the one chat template of the saved model in `folder`."""
    (folder / TEMPLATE_FILE).write_text(text, encoding="utf-8")
    path = folder / TOKENIZER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if config.pop("chat_template", None):  # transformers reads the file first, others this
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
