"""`report.md` and the methods paragraph: templates, and what fills them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aim_exp.report.tables.markdown import as_markdown, escape_markdown
from aim_exp.report.words import listed


def render(template: str, **values: Any) -> str:
    """A template of this folder: Markdown or plain text, whose filters escape what is inserted."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("aim_exp.report", "text"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,
    )
    environment.filters |= {
        "md": escape_markdown,
        "table": as_markdown,
        "listed": listed,
        "bracketed": bracketed,
    }
    return environment


def bracketed(values: Mapping[str, Sequence[str]]) -> str:
    """` (density 0.2 and 0.5, scale 1)`; nothing of nothing."""
    named = [f"{name.replace('_', ' ')} {listed(several)}" for name, several in values.items()]
    return f" ({', '.join(named)})" if named else ""
