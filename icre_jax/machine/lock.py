"""One writer per folder: a lock that ends with the process that holds it, however that ends."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from icre_jax.errors import InputError


@contextlib.contextmanager
def lock_folder(folder: Path, *, flag: str) -> Iterator[int]:
    """Keep other writers out of `folder` (created); the file descriptor of the lock, which child processes may inherit.

    A child that inherits it holds the lock until it ends as well, so that nothing writes beside it even if this process
    was killed. The operating system takes the lock back from a process that died: nothing stale stays behind.

    Args:
      folder: what to lock.
      flag: the command-line flag that named it, for the messages.

    Raises:
      InputError: it is locked (by whom is said), or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # "a": who holds it stays readable for those who do not get it.
        file = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot write to {folder}: {error}. Choose another {flag}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InputError(
                f"{folder} is in use by {owner}, or by a process that it started. Wait for it, stop it, or use another "
                f"{flag}."
            ) from error
        except OSError as error:
            raise InputError(
                f"{folder} cannot be locked against a second writer: {error}. Choose another {flag}, on a file system "
                "that has locks."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield file.fileno()
