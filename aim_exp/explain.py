"""Errors in a few lines for a person: ours as they are, Hydra's without what is no help."""

from __future__ import annotations

import difflib
import re

from aim_exp.errors import AimError
from aim_exp.schema import known_keys

MOST_LINES = 6
"""Of an error that is not ours."""


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
    if unknown := re.search(r"Key '(\w+)' (?:is )?not in", "\n".join(lines)):
        close = difflib.get_close_matches(unknown[1], known_keys(), n=2)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; see --help"
        key = next(
            (line[10:].strip() for line in lines if line.startswith("full_key:")), unknown[1]
        )
        return f"{key}: there is no such key{hint}"
    unhelpful = ("full_key:", "object_type=", "Config search", "provider=")
    told = [line for line in dict.fromkeys(lines) if line and not line.startswith(unhelpful)]
    for index, line in enumerate(told):
        if line.startswith("Available options"):  # Hydra gives each a line of its own
            return "\n".join([*told[:index], f"{line} {', '.join(told[index + 1 :])}"])
    return "\n".join(told[:MOST_LINES])
