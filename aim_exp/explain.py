"""Errors in a few lines for a person: ours as they are, Hydra's without what is no help."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from aim_exp.errors import AimError
from aim_exp.schema import known_keys, known_options

MOST_LINES = 6
"""Of an error that is not ours."""
GRAMMAR = ("Error parsing override", "no viable alternative", "mismatched input", "missing EQUAL")
"""How Hydra says that it cannot read an override."""


def explain(error: BaseException) -> str:
    """One or a few lines for a person; an error that is not theirs says how to see more."""
    if isinstance(error, AimError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"{type(error).__name__}: {first_lines(error)} (debug=true shows the traceback)"


def first_lines(error: BaseException) -> str:
    """The words of an error of Hydra's and of its cause, without what is no help."""
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    text = "\n".join(lines)
    if unknown := re.search(r"Key '(\w+)' (?:is )?not in", text):
        key = next(
            (line[10:].strip() for line in lines if line.startswith("full_key:")), unknown[1]
        )
        return f"{key}: there is no such key{_hint(unknown[1], known_keys()) or '; see --help'}"
    if unknown := re.search(r"Could not find '(\w+)/([^']+)'", text):
        options = known_options(unknown[1])
        hint = _hint(unknown[2], options)
        return f"{unknown[1]}={unknown[2]}: no such option{hint}; there are {', '.join(options)}"
    if swept := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{swept[1]}: a comma makes a sweep, and that takes -m: python run.py -m {swept[1]}"
    if any(words in text for words in GRAMMAR):
        reason = next(line for line in lines if line)
        return f"{reason}; in quotes what holds brackets, braces or blanks: 'KEY={{a: 1, b: 2}}'"
    unhelpful = ("full_key:", "object_type=", "Config search", "provider=")
    told = [line for line in dict.fromkeys(lines) if line and not line.startswith(unhelpful)]
    return "\n".join(told[:MOST_LINES])


def _hint(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
