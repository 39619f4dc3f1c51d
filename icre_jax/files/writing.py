"""Files and folders that are there whole or not at all, whatever ends the process, or the machine, that writes them."""

import concurrent.futures
import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_AT_ONCE = 8


@contextlib.contextmanager
def whole_file(path: Path, *, locked: bool = False) -> Iterator[Path]:
    """A file name beside `path` to write to; the file takes its own name, and the place of what is there, at the end.

    If the block fails, nothing of it is left and `path` is as it was.

    Args:
      path: in a folder that exists; a link there is replaced, not what it points to.
      locked: nobody else writes to this folder. The name to write to is then always the same, so that a process that
        was killed leaves at most one file, which the next one uses up.

    Raises:
      OSError: the folder cannot be written, or a device, pipe or socket is at `path`, which is no place for a file.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FileExistsError(errno.EEXIST, "No regular file is there", str(path))
    # In the same folder, because a replace is atomic only within one file system.
    partial = path.with_name(f".{path.name}.partial" if locked else f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)  # else a machine that loses its power may have the name without the content
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes, *, locked: bool = False) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all; arguments and errors as of `whole_file`."""
    with whole_file(path, locked=locked) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def sync_folder(folder: Path) -> None:
    """Wait until `folder` and all that is in it are on the disk, so that a machine may lose its power after that.

    Raises:
      OSError: the disk cannot write them.
    """
    found = sorted(folder.rglob("*"))
    folders = [folder, *(path for path in found if path.is_dir())]
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:  # the waits of several are hardly longer than of one
        list(pool.map(sync, [path for path in found if not path.is_dir()]))
        list(pool.map(sync, reversed(folders)))


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
      OSError: the disk cannot write them.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no such thing
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to fill; it takes its own name at the end, where nothing or an empty folder may be.

    If the block fails, nothing of it is left.

    Raises:
      OSError: the place cannot be written, or something else is there by then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.unfinished-", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes it private
        sync_folder(partial)
        if path.is_dir():
            path.rmdir()
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
