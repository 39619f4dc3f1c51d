"""One process at a time, where several may begin the same work."""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block of `folder` (created), and keep others out of it.

    The operating system takes the lock back from a process that dies. Where the file system has no locks nobody waits.

    Raises:
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
        yield
