"""What is dear to compute of a sweep's items, kept beside them by what it rests on."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aim_exp.report.files import write_atomically
from aim_exp.store.keys import content_key

KEY_DIGITS = 24


def kept(folder: Path, version: int, spec: Any, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON; from `folder` if the same was made before.

    `spec` is all that it depends on. In a folder that cannot be written, it is made each time.
    """
    file = folder / f"{content_key(folder.name, version, spec)[:KEY_DIGITS]}.json"
    with suppress(OSError, ValueError):
        return json.loads(file.read_bytes())
    value = make()
    with suppress(OSError):
        write_atomically(file, lambda partial: partial.write_text(json.dumps(value) + "\n"))
    return value
