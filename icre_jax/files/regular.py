"""Opens a file that anybody may have written. It never waits for one, and never reads more than was allowed."""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from icre_jax.errors import UnreadableError

# Without the first, opening a pipe waits for somebody who writes to it. For a regular file it means nothing.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextlib.contextmanager
def open_regular(path: Path, *, most_bytes: int) -> Iterator[io.BufferedReader]:
    """A file for reading, as a context in which an error of the disk is an `UnreadableError` too.

    Links are followed: a link names a file as well as its own name does.

    Args:
      path: of anything.
      most_bytes: the largest file that is opened.

    Raises:
      UnreadableError: nothing is there, no regular file is, or a larger one; its cause is the `OSError`, if any.
    """
    descriptor = _open(path)
    with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor, not a path)
        found = os.fstat(descriptor)
        _require_regular(path, found)
        if found.st_size > most_bytes:
            raise UnreadableError(path, f"it has {found.st_size:,} bytes; at most {most_bytes:,} are read")
        try:
            yield file
        except OSError as error:
            raise UnreadableError(path, error.strerror or str(error)) from error


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def file_size(path: Path) -> int:
    """Bytes of a regular file, which is not opened; errors as of `open_regular`."""
    return _look(path).st_size


def read_bytes(path: Path, *, most_bytes: int) -> bytes:
    """All of a file.

    Raises:
      UnreadableError: as of `open_regular`; or it changed while it was read.
    """
    with open_regular(path, most_bytes=most_bytes) as file:
        size = size_of(file)
        content = file.read(size + 1)  # one more: a file may grow, and those of /proc have no size
    if len(content) != size:
        raise UnreadableError(path, f"it changed while it was read: {size:,} bytes at first, then {len(content):,}")
    return content


def _open(path: Path) -> int:
    _look(path)  # and again when it is open; but opening a device may already do something
    try:
        return os.open(path, _FLAGS)
    except OSError as error:
        raise UnreadableError(path, error.strerror or str(error)) from error


def _look(path: Path) -> os.stat_result:
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise UnreadableError(path, "there is no such file") from error
    except OSError as error:
        raise UnreadableError(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise UnreadableError(path, "its name holds a null character") from error
    _require_regular(path, found)
    return found


def _require_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for test, words in _KINDS if test(found.st_mode)), "something else")
        raise UnreadableError(path, f"it is {kind}, not a file")
