"""Chat templates: which of a tokenizer's a model is asked with, and how a saved model gets it.

With a template goes what ends an answer: both are those of one model.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aim_exp.checkpoint.files import (
    CONFIG_FILE,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    json_if_there,
    write_json,
)
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.vocabulary import load_tokenizer
from aim_exp.errors import CheckpointError, collect, first_line
from aim_exp.types import ModelRef

TEMPLATE_FILE = "chat_template.jinja"


def chat_template(model: ModelRef, wanted: bool | str) -> str:
    """The text of a model's template called `wanted`; True takes the tokenizer's usual one.

    Raises CheckpointError where there is none, or where it does not render: in jinja's sandbox.
    """
    key = f"benchmarks.chat_template={str(wanted).lower()}"
    name = wanted if isinstance(wanted, str) else "default"
    tokenizer = _tokenizer(model)
    templates = tokenizer.chat_template or {}
    if not isinstance(templates, dict):
        templates = {"default": templates}
    if name not in templates:
        there = ", ".join(templates) or "none"
        raise CheckpointError(
            f"{key}: the tokenizer of {model.name} has no "
            f"such chat template ({there}); name a model that has one in population.chat_template"
        )
    question = [{"role": "user", "content": "Q"}]
    try:
        tokenizer.apply_chat_template(question, chat_template=templates[name], tokenize=False)
    except Exception as error:  # jinja's, its sandbox's, or whatever an expression raises
        raise CheckpointError(
            f"{key}: the chat template of {model.name} fails ({first_line(error)}); mend it, or "
            "name a model with another one in population.chat_template"
        ) from error
    return templates[name]


def template_problems(models: Iterable[ModelRef], wanted: bool | str) -> list[str]:
    """Which models have no such template, of those that are on disk."""
    problems: list[str] = []
    for model in dict.fromkeys(models):
        if model.path.is_dir():
            collect(problems, partial(chat_template, model, wanted))
    return problems


def stop_tokens(model: ModelRef) -> tuple[str, ...]:
    """The tokens that end a model's answers: its tokenizer's, and its generation settings'."""
    tokenizer = _tokenizer(model)
    tokens = [tokenizer.eos_token, *tokenizer.convert_ids_to_tokens(_stop_ids(model))]
    return tuple(dict.fromkeys(filter(None, tokens)))


def template_warnings(model: ModelRef, home: ModelRef, text: str) -> list[str]:
    """Where the template `text` of `model` and the ends of answers do not go together.

    `home` is the model with whose vocabulary it is used.
    """
    tokenizer = _tokenizer(model)
    stops, warnings = stop_tokens(model), []
    end = _end_of_turn(tokenizer, text)
    if end and end not in stops:
        warnings.append(
            f"chat template of {model.name}: a turn ends with {end}, but answers with "
            f"{' or '.join(stops)}; add {end} to eos_token_id in its {GENERATION_CONFIG}"
        )
    elif _stop_ids(model) and tokenizer.eos_token_id not in _stop_ids(model):
        warnings.append(
            f"chat template of {model.name}: its tokenizer ends answers with "
            f"{tokenizer.eos_token}, its {GENERATION_CONFIG} does not; both end them here"
        )
    known = _tokenizer(home).get_vocab()
    if missing := [token for token in stops if token not in known]:
        warnings.append(
            f"chat template of {model.name}: the vocabulary of {home.name} lacks "
            f"{' and '.join(missing)}, so that answers asked with it may not end"
        )
    return warnings


def write_chat_template(folder: Path, text: str, stops: Sequence[str]) -> None:
    """Make `text` the one chat template of the saved model in `folder`, which ends at `stops`.

    Those of them that its vocabulary has; the first is the tokenizer's.
    """
    (folder / TEMPLATE_FILE).write_text(text, encoding="utf-8")
    vocabulary = load_tokenizer(Checkpoint(folder, "the merged model")).get_vocab()
    ends = [stop for stop in stops if stop in vocabulary]
    settings, generation, config = (
        json_if_there(folder / name, "the merged model")
        for name in (TOKENIZER_CONFIG, GENERATION_CONFIG, CONFIG_FILE)
    )
    settings.pop("chat_template", None)  # transformers reads the file first, others this
    if not generation:  # transformers would take these from the configuration
        generation = {key: config[key] for key in ("bos_token_id", "pad_token_id") if key in config}
    if ends:
        settings["eos_token"] = ends[0]
        ids = [vocabulary[token] for token in ends]
        generation["eos_token_id"] = ids if len(ids) > 1 else ids[0]
    write_json(folder / TOKENIZER_CONFIG, settings)
    write_json(folder / GENERATION_CONFIG, generation)


def _tokenizer(model: ModelRef) -> Any:
    return load_tokenizer(Checkpoint(model.path, model.name))


def _stop_ids(model: ModelRef) -> list[int]:
    """Of `generation_config.json`; without one transformers takes those of the configuration."""
    files = (model.path / name for name in (GENERATION_CONFIG, CONFIG_FILE))
    settings = next(filter(None, (json_if_there(file, model.name) for file in files)), {})
    ids = settings.get("eos_token_id")
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _end_of_turn(tokenizer: Any, text: str) -> str | None:
    """The special token that follows an answer in the template; None where there is none."""
    mark = "ANSWER"
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": mark}]
    try:
        shown = tokenizer.apply_chat_template(turns, chat_template=text, tokenize=False)
    except Exception:  # a template may refuse these turns
        return None
    _, answer, rest = shown.rpartition(mark)
    special = [token for token in tokenizer.added_tokens_encoder if rest.startswith(token)]
    return max(special, key=len) if answer and special else None
