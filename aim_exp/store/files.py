"""Files that count once they are renamed: first their content is on the disk, then their name.

Until then they bear the mark of the process that writes them: `leftovers` removes a killed one's.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from aim_exp.console import size_text
from aim_exp.errors import AimError

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
RUN_KEYS = "hydra.run.dir or hydra.sweep.dir"
"""Where runs write, by themselves or in a sweep."""


class StorageError(AimError):
    """A folder that was named has no room, or cannot be written."""


@cache
def mark() -> str:
    """What all names of this process's unfinished files begin with, of no other one's."""
    return uuid.uuid4().hex


os.register_at_fork(after_in_child=mark.cache_clear)


def marked_name() -> str:
    """A name that begins with the mark, and was not in use before."""
    return f"{mark()}-{next(_numbers)}"


@contextmanager
def unfinished(final: Path) -> Iterator[Path]:
    """A hidden name beside `final`, of the same suffix, to be filled and put in its place.

    What is there at the end, a file or a folder, is removed.
    """
    partial = final.with_name(f".{marked_name()}{final.suffix}")
    try:
        yield partial
    finally:
        remove(partial)


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A folder to be filled, which then is `final`, unless another process was faster.

    Its parent must be there: what was taken over must not come back.
    """
    with unfinished(final) as partial:
        partial.mkdir()
        yield partial
        try:
            publish(partial, final)
        except OSError:
            if not final.is_dir():
                raise


def remove(path: Path) -> None:
    """A file, or a folder with all in it, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def publish(partial: Path, final: Path) -> None:
    """Rename a file, or a folder with all in it: after a power cut it is whole or not there.

    A file in its place is replaced; a folder must be empty or missing. What can be worked out again
    and is checked when it is read (notes of digests, figures) needs no such care.
    """
    for folder, _, files in os.walk(partial):
        for path in (*(Path(folder, file) for file in files), Path(folder)):
            _sync(path)
    if not partial.is_dir():
        _sync(partial)
    partial.replace(final)
    _sync(final.parent)


def check_free(what: str, size: int, folder: Path, key: str) -> None:
    """StorageError, with `key`, where the folder's disk has not that many bytes for `what`."""
    free = shutil.disk_usage(existing(folder)).free
    if free < size:
        raise StorageError(
            f"{key}={folder}: {size_text(size)} are needed for {what}, and {size_text(free)} are "
            "left on its disk; make room, or name a folder of another one (what is done is kept)"
        )


def existing(folder: Path) -> Path:
    """It, or what there is above it."""
    return folder if folder.exists() else existing(folder.absolute().parent)


def fill_whole(final: Path, fill: Callable[[Path], object]) -> None:
    """Have `fill` write a file at the path it is given, whole or not at all.

    Once more where another process took this one for dead, and the unfinished file away.
    """
    published = False
    while not published:
        with unfinished(final) as partial:
            fill(partial)
            with suppress(FileNotFoundError):
                publish(partial, final)
                published = True


def write_whole(path: Path, text: str, key: str = RUN_KEYS) -> None:
    """Write a text file whole or not at all. StorageError with `key` where there is no room."""
    with named(path, path.parent, key):
        fill_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


@contextmanager
def named(what: object, folder: Path, key: str) -> Iterator[None]:
    """StorageError, with `key`, where `what` cannot be written in `folder`: no room, no rights."""
    try:
        yield
    except StorageError:  # the innermost says it best
        raise
    except Exception as error:
        causes = list(_causes(error))
        files = [each.filename2 or each.filename for each in causes if isinstance(each, OSError)]
        names = [os.fsdecode(file) for file in files if file]
        if all(Path(name).absolute().is_relative_to(folder.absolute()) for name in names):
            if any(map(_is_full, causes)):
                raise StorageError(
                    f"{key}={folder}: no room left on the disk for {what}; make some, or name a "
                    "folder of another disk (what is done is kept)"
                ) from error
            if names and any(isinstance(each, OSError) and each.errno in CLOSED for each in causes):
                raise StorageError(
                    f"{key}={folder}: {names[0]} cannot be written, and {what} is not there yet; "
                    "name a folder of your own"
                ) from error
        raise


_numbers = itertools.count()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """It and what it came of, as far as that is not told already."""
    while error and not isinstance(error, StorageError):
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    """safetensors tells it in words alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return os.strerror(errno.ENOSPC) in str(error)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems have none for folders
            raise
    finally:
        os.close(descriptor)
