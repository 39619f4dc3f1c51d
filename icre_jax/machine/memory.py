"""Memory that was freed, and that the C library keeps."""

import contextlib
import ctypes


def give_back() -> None:
    """Hand freed memory back to the system, where the C library can (glibc).

    A save allocates and frees in many threads. glibc keeps what lies free between blocks in use, for each thread apart,
    and a process that saves often grows for hours.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
