"""`report.md` and the methods paragraph: templates, and what fills them."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aim_exp.report.tables.markdown import as_markdown, escape_markdown


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
    environment.filters |= {"md": escape_markdown, "table": as_markdown, "listed": listed}
    return environment


def listed(values: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = values or [""]
    return f"{', '.join(most)} and {last}" if most else last
