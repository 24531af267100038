"""The code of parts from outside this package: an ingredient of content keys, and its errors.

The package's own code counts up `STAGE_VERSIONS` in `aim_exp.run.keys` where it changes
numbers. A class of your own is known by the digest of the file that defines it, and of the files of
those of its bases that are not this package's either. Modules that these import are not followed.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
import traceback
from functools import cache
from pathlib import Path
from sysconfig import get_paths
from types import ModuleType

from aim_exp.errors import AimError, did_you_mean

KNOWN = {__name__.partition(".")[0], *sys.stdlib_module_names} - {"__main__"}
"""Top-level modules whose code the keys know by other means: versions."""
FOREIGN = (
    f"{Path(__file__).parents[1]}{os.sep}",
    *{f"{get_paths()[name]}{os.sep}" for name in ("stdlib", "purelib", "platlib")},
    "<",
)
"""How the paths of files begin that are no plug-in's: ours, Python's, libraries', `<string>`."""


def source_digest(part: object, key: str) -> str | None:
    """The digest of the code of `part`'s class; None where it is all this package's own.

    AimError naming the configuration's `key` where code is in no file, as in a notebook: nothing
    would tell its results from those of an earlier version.
    """
    outside = outside_modules(part)
    if not outside:
        return None
    try:
        digests = [hashlib.sha256(source(sys.modules[name])).hexdigest() for name in outside]
    except (KeyError, TypeError, OSError) as error:
        name = f"{type(part).__module__}.{type(part).__qualname__}"
        raise AimError(
            f"{key}={name}: its code is in no file, so that nothing tells its results from those "
            "of an earlier version; put it into a module"
        ) from error
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def message_with_place(error: BaseException, words: str | None = None) -> str:
    """`AttributeError in mine/agreement.py line 22: ...`; without the place where it is not theirs.

    The place is the last one outside this package, Python and the libraries. `words`: other ones
    than the error's own.
    """
    file, line = _place(error)
    where = f" in {_short(file)} line {line}" if file else ""
    own = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}{where}: {own if words is None else words}"


def not_built(target: str, error: BaseException) -> str:
    """Why there is no object of the class `target`, in a line, from what was raised."""
    module, _, name = target.rpartition(".")
    if isinstance(error, ModuleNotFoundError) and error.name == target and module in sys.modules:
        hint = did_you_mean(name, dir(sys.modules[module]))
        return f"{module} has no class {name}{hint}"
    return " ".join(message_with_place(error).split())


def _place(error: BaseException) -> tuple[str | None, int | None]:
    """File and line."""
    if isinstance(error, SyntaxError):
        return error.filename, error.lineno
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") != "__main__"  # that is run.py
    ]
    theirs = [place for place in frames if not place[0].startswith(FOREIGN)]
    return theirs[-1] if theirs else (None, None)


def _short(file: str) -> str:
    """Relative to the working directory where it is below that."""
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative


def outside_modules(part: object) -> list[str]:
    """The modules of its class and its bases that are not this package's."""
    names = {base.__module__ for base in type(part).__mro__}
    return sorted(name for name in names if name.partition(".")[0] not in KNOWN)


@cache
def source(module: ModuleType) -> bytes:
    """Read once: what a process runs is the code that it imported."""
    return Path(inspect.getfile(module)).read_bytes()
