"""Errors in a few lines for a person: ours as they are, Hydra's without what is no help."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)

from aim_exp.config.folder import CONFIG_FOLDER, known_options
from aim_exp.config.plugins import message_with_place
from aim_exp.config.schema_errors import unknown_key, wrong_type
from aim_exp.errors import AimError, did_you_mean, first_line
from aim_exp.store.files import FULL
from aim_exp.store.run_record import INTERRUPTED

MOST_LINES = 6
"""Of an error that is not ours."""
BRACKETS = {"[": "]", "{": "}", "(": ")"}


def explain(error: BaseException) -> str:
    """One or a few lines for a person; an error that is not theirs says how to see more."""
    if isinstance(error, AimError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, OmegaConfBaseException | HydraException):
        return first_lines(error)
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" of {error.filename}" if error.filename else ""
        return (
            f"no room left on the disk{where}; make some, or set cache_dir, hydra.run.dir or "
            "hydra.sweep.dir to a folder of another one (what is done is kept)"
        )
    return f"{message_with_place(error, first_lines(error))} (debug=true shows the traceback)"


def first_lines(error: BaseException) -> str:
    """The words of an error of Hydra's and of its cause, without what is no help."""
    if problem := _unlike_schema(error):
        if problem.startswith("hydra.launcher.detach: "):  # what the entry point makes of it
            return "--detach: these jobs end with the command; those of hydra/launcher=slurm go on"
        return problem
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    text = "\n".join(lines)
    if unknown := re.search(r"Could not find '(\w+)/([^']+)'", text):
        options = known_options(unknown[1])
        hint = did_you_mean(unknown[2], options)
        return f"{unknown[1]}={unknown[2]}: no such option{hint}; there are {', '.join(options)}"
    if option := re.search(r"Could not load 'schema/([^']+)'", text):
        place = "METHODS in aim_exp/merge/__init__.py"
        if not option[1].startswith("method/"):
            place = "OPTIONS in aim_exp/config/schema.py"
        return f"{option[1]}: no class for it; name it under {place}"
    if swept := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{swept[1]}: a comma makes a sweep, and that takes -m: python run.py -m {swept[1]}"
    if searched := re.search(r"Sweep parameters '(.*)' requires --multirun", text):
        return (
            f"{searched[1]}: values of a sweep, and that takes -m: python run.py -m {searched[1]}"
        )
    if re.search(r"does not support sweep type : INTERVAL_SWEEP", text):
        return (
            "an interval is for a sweeper that searches, which hydra/sweeper=... chooses; name the "
            "values: omega=0.2,0.4 or 'omega=range(0.2,1,0.2)'"
        )
    if there := re.search(r"Could not append to config. An item is already at '([^']+)'", text):
        return f"+{there[1]}: + is for keys that are new, and it has a value; write {there[1]}=..."
    if isinstance(error, OverrideParseException):
        if evaluated := re.search(r"\w+ while evaluating '.*': (.*)", text):
            return f"{error.override}: {evaluated[1]}"
        return _unreadable(error.override)
    unhelpful = ("full_key:", "object_type=", "reference_type=", "Config search", "provider=")
    text = re.sub(r"^Error merging override (.*)\n", r"\1: ", text)
    words = [
        line for line in dict.fromkeys(text.splitlines()) if line and not line.startswith(unhelpful)
    ]
    return "\n".join(words[:MOST_LINES])


def wrong_override(error: Exception, arguments: Sequence[str]) -> str | None:
    """The override that Hydra fails on in words of its own: a reference, a range, a group's value.

    None where it is none of those.
    """
    words = str(error)
    if isinstance(error, InterpolationResolutionError) or words.startswith(
        "Invalid value assigned"
    ):
        reason = first_line(error)
        referring = (argument for argument in arguments if "${" in argument)
        return next(
            (f"{each}: cannot be resolved ({reason}); give a value" for each in referring), None
        )
    if not isinstance(error, ValueError) or isinstance(error, AimError):
        return None
    if inside := re.match("invalid literal for int.* base 10: '(.*)'", words):
        if argument := next((each for each in arguments if f".{inside[1]}=" in each), None):
            return f"{argument}: a list has no key {inside[1]}; give the whole list"
        return None
    parser = OverridesParser.create()
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except (HydraException, AimError):  # an option, as -m; or told already
            continue
        try:
            swept = override.is_sweep_override()
            values = [*override.sweep_iterator()] if swept else [override.value()]
        except ValueError as reason:
            return f"{argument}: {reason}; give values that make a sweep"
        group = override.key_or_group
        named = all(isinstance(value, str | list | None) for value in values)
        if (CONFIG_FOLDER / group).is_dir() and not named:
            return f"{argument}: must name an option; there are {', '.join(known_options(group))}"
    return None


def _unlike_schema(error: BaseException) -> str | None:
    """The words for an unknown key or a value of another type than the schema's."""
    cause = error if isinstance(error, OmegaConfBaseException) else _below(error)
    if not isinstance(cause, OmegaConfBaseException):
        return None
    node, key, path = cause.parent_node, str(cause.key), cause.full_key or str(cause.key)
    if not isinstance(node, DictConfig):
        return None
    problem = None
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
        problem = unknown_key(node, key, path)
    elif isinstance(cause, InterpolationResolutionError):
        reason = first_line(cause)
        problem = f"{path}: cannot be resolved ({reason}); give a value in place of ${{...}}"
    elif isinstance(cause, ValidationError):
        override = re.match(r"Error merging override \+*(.*)", str(error))
        problem = wrong_type(node, key, override[1] if override else f"{path}={cause.value}")
    file = re.match(r"In '([^']+)': \w+ raised while composing", str(error))
    return f"conf/{file[1]}.yaml: {problem}" if problem and file else problem


def _below(error: BaseException) -> BaseException | None:
    """What an error of Hydra's was made from; it does not always say so with `from`."""
    return error.__cause__ or error.__context__ if isinstance(error, HydraException) else None


def _unreadable(override: str) -> str:
    """What is wrong with the grammar of an override, as far as one can tell."""
    quote = "in quotes what holds brackets, braces or blanks: 'KEY={a: 1, b: 2}'"
    if "=" not in override:
        return f"{override}: no = in it, or blanks around that; write KEY=VALUE, {quote}"
    for opening, closing in BRACKETS.items():
        if override.count(opening) > override.count(closing):
            return f"{override}: {opening} is not closed by {closing}; {quote}"
        if override.count(opening) < override.count(closing):
            return f"{override}: {closing} closes no {opening}"
    return f"{override}: cannot be read; {quote}"
