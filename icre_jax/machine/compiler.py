"""A thread in which XLA compiles: nothing can interrupt it, and a process that fails need not wait for it."""

import threading
from collections.abc import Callable

_NAME = "compiler"


def start(work: Callable[[], None]) -> threading.Thread:
    """Do `work` in a thread of its own; the thread, to be joined."""
    thread = threading.Thread(target=work, name=_NAME)
    thread.start()
    return thread


def is_busy() -> bool:
    """Whether such a thread is at work."""
    return any(thread.name == _NAME for thread in threading.enumerate())
