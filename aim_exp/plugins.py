"""The code of parts from outside this package, as an ingredient of content keys.

The package's own code counts up `STAGE_VERSIONS` in `aim_exp.plan` where it changes numbers. A
class of your own is known by the digest of the file that defines it, and of the files of those of
its bases that are not this package's either. Modules that these import are not followed.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from aim_exp.errors import AimError

KNOWN = {__name__.partition(".")[0], *sys.stdlib_module_names} - {"__main__"}
"""Top-level modules whose code the keys know by other means: versions."""


def source_digest(part: object, key: str) -> str | None:
    """The digest of the code of `part`'s class; None where it is all this package's own.

    AimError naming the configuration's `key` where code is in no file, as in a notebook: nothing
    would tell its results from those of an earlier version.
    """
    names = {base.__module__ for base in type(part).__mro__}
    outside = sorted(name for name in names if name.partition(".")[0] not in KNOWN)
    if not outside:
        return None
    try:
        digests = [_file_digest(sys.modules[name]) for name in outside]
    except (KeyError, TypeError, OSError) as error:
        name = f"{type(part).__module__}.{type(part).__qualname__}"
        raise AimError(
            f"{key}={name}: its code is in no file, so that nothing tells its results from those "
            "of an earlier version; put it into a module"
        ) from error
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@cache
def _file_digest(module: ModuleType) -> str:
    """Asked once: what a process runs is the code that it imported."""
    return hashlib.sha256(Path(inspect.getfile(module)).read_bytes()).hexdigest()
