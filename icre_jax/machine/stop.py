"""Stopping on request: the first SIGINT or SIGTERM asks, the second one ends the process at once."""

import builtins
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, `requested` turns true at the first signal; the training loop then saves and leaves.

    Signals can be caught in the main thread only; in any other one (some notebooks) nothing is caught.
    """

    def __init__(self, *, second_ends: bool = False):
        """Prepare.

        Args:
          second_ends: a second signal ends the process with exit code 128 + its number, even while the main thread is
            inside a library (compiling, waiting for a device) where Python runs no handler. Otherwise it does what it
            did before this was entered.
        """
        self.requested = False
        self._second_ends = second_ends
        self._previous: dict[signal.Signals, Any] = {}
        self._watch = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._ask) for number in _SIGNALS}
            if self._second_ends:
                self._watch.enter_context(_end_at_second())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.close()
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self._second_ends:
            self._restore()  # the next signal does what it always did

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def stop_request() -> StopRequest:
    """That of a run: a second signal ends the process, but for a notebook, whose process is not ours to end."""
    return StopRequest(second_ends=not hasattr(builtins, "__IPYTHON__"))


@contextlib.contextmanager
def _end_at_second() -> Iterator[None]:
    """Count signals in a thread of its own, to which the system's handler writes them whatever the main thread does."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    previous = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)

    def count() -> None:
        asked = False
        while received := reading.recv(1):
            if received[0] not in _SIGNALS:
                continue
            if asked:
                os.write(2, b"Ended at once by a second signal; the same command continues.\n")
                os._exit(128 + received[0])
            asked = True

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        writing.close()  # ends the thread
        thread.join()
        reading.close()
