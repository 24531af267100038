"""How a paper wants its tables and figures: `--labels FILE`, in YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt

from aim_exp.errors import AimError, did_you_mean, first_line

MarginKind = Literal["deviation", "stderr", "none"]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What the files for papers look like; the defaults are those of a report."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    names: Mapping[str, str] = field(default_factory=dict)
    """Of methods, benchmarks and settings, as they are to be written: `tiny_gsm8k: GSM8K`."""
    columns: tuple[str, ...] = ()
    """Benchmarks, `average` and `gain`, in order; empty: all."""
    changes: Literal["points", "percent"] = "points"
    """Below a merge with AIM: points, or the published tables' percent of the plain merge."""
    margin: MarginKind = "deviation"
    """After ±, and as bars: the deviation over draws (where there are none, the standard error),
    `stderr`, or `none`."""
    marks: bool = True
    """A star on a change that holds, by its adjusted p and interval."""
    width: Annotated[float, Gt(0)] | None = None
    """Of a figure, in inches."""
    font: str | None = None
    """Family, as Matplotlib knows it: `serif`."""

    def write(self, text: str) -> str:
        """`text` with names as they are to be written, whole words alone."""
        if not self.names:
            return text
        words = "|".join(re.escape(name) for name in sorted(self.names, key=len, reverse=True))
        return re.sub(rf"(?<![\w.])(?:{words})(?![\w.])", lambda word: self.names[word[0]], text)


AS_IT_IS = Paper()


def read_paper(path: Path) -> Paper:
    """AimError, which names the key and what it may be, for a file that is none."""
    from pydantic import TypeAdapter, ValidationError
    from yaml import YAMLError, safe_load

    try:
        content: Any = safe_load(path.read_text(encoding="utf-8")) or {}
        return TypeAdapter(Paper).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        hint, known = "", [each.name for each in fields(Paper)]
        if first["type"] == "unexpected_keyword_argument":
            hint = f"{did_you_mean(key, known)}; there are: {', '.join(known)}"
        where = f"{key}={first['input']}".removeprefix("=")
        raise AimError(f"--labels {path}: {where}: {first['msg']}{hint}") from error
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise AimError(f"--labels {path}: cannot be read as YAML ({first_line(error)})") from error
