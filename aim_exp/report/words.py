"""Names in a row, as sentences have them."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], most: int | None = None) -> str:
    """`a`, `a and b`, `a, b and c`; of more than `most` the first ones: `a, b and 8 more`."""
    if most is not None and len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    *others, last = names or [""]
    return f"{', '.join(others)} and {last}" if others else last


def few(names: Sequence[str], most: int = 4) -> str:
    """`a, b`; of many the first ones: `a, b, c, d and 8 more`."""
    return listed(names, most) if len(names) > most else ", ".join(names)
