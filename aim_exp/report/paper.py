"""How a paper wants its tables and figures: `--labels FILE`, in YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from aim_exp.errors import AimError, did_you_mean, first_line

CHOICES = {
    "changes": ("points", "percent"),
    "margin": ("deviation", "stderr", "none"),
}


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What the files for papers look like; the defaults are those of a report."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Of methods, benchmarks and settings, as they are to be written: `tiny_gsm8k: GSM8K`."""
    columns: tuple[str, ...] = ()
    """Benchmarks, `average` and `gain`, in order; empty: all."""
    changes: str = "points"
    """Below a merge with AIM: points, or the published tables' percent of the plain merge."""
    margin: str = "deviation"
    """After ±: the deviation over draws (of one, the standard error), `stderr`, or `none`."""
    marks: bool = True
    """A star on a change that holds, by its adjusted p and interval."""
    width: float | None = None
    """Of a figure, in inches."""
    font: str | None = None
    """Family, as Matplotlib knows it: `serif`."""

    def write(self, text: str) -> str:
        """`text` with names as they are to be written, whole words alone."""
        if not self.names:
            return text
        words = "|".join(re.escape(name) for name in sorted(self.names, key=len, reverse=True))
        return re.sub(rf"(?<![\w.])(?:{words})(?![\w.])", lambda found: self.names[found[0]], text)


AS_IT_IS = Paper()


def read_paper(path: Path) -> Paper:
    """AimError, which names the key and what it may be, for a file that is none."""
    from yaml import YAMLError, safe_load

    try:
        content: Any = safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise AimError(f"--labels {path}: cannot be read as YAML ({first_line(error)})") from error
    known = [each.name for each in fields(Paper)]
    if not isinstance(content, dict) or not set(content) <= set(known):
        odd = next((str(key) for key in content if key not in known), "")
        hint = did_you_mean(odd, known) if odd else ""
        raise AimError(f"--labels {path}: {odd}: no such key{hint}; there are: {', '.join(known)}")
    for key, value in content.items():
        if not _fits(key, value):
            choices = " or ".join(CHOICES.get(key, (EXAMPLES.get(key, ""),)))
            raise AimError(f"--labels {path}: {key}={value}: must be {choices}")
    names = {str(name): str(text) for name, text in (content.get("names") or {}).items()}
    return Paper(**{**content, "names": names, "columns": tuple(content.get("columns") or ())})


EXAMPLES = {
    "names": "a table, as in {ties: TIES}",
    "columns": "a list, as in [average, gsm8k]",
    "marks": "true or false",
    "width": "inches above 0",
    "font": "the name of a font's family",
}


def _fits(key: str, value: Any) -> bool:
    if key in CHOICES:
        return value in CHOICES[key]
    if key == "width":
        return not isinstance(value, bool) and isinstance(value, int | float) and value > 0
    kinds = {"names": dict, "columns": list, "marks": bool, "font": str}
    return isinstance(value, kinds[key])
