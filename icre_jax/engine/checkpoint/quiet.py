"""What of orbax's words reaches a user: the reason of an error, in one message."""

import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from icre_jax.errors import InputError

# Errors in a read that say nothing of what is read.
NOT_DAMAGE = (InputError, MemoryError, jax.errors.JaxRuntimeError)


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Keep warnings and tracebacks of its threads off the screen: what fails raises, and is said in one message."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@functools.cache  # once in a process
def drop_late_reports() -> None:
    """Keep off the screen what arrays report that nobody waits for any more, because another could not be read.

    Threads of tensorstore do, after the read has failed: they find the event loop of that read closed. So does what
    orbax was reading when it is cleared away, with whatever error the closed loop gives it. What was wrong with the
    read itself is raised.
    """
    before = sys.unraisablehook

    def report(event: Any) -> None:
        closed = isinstance(event.exc_value, RuntimeError) and str(event.exc_value) == "Event loop is closed"
        if not (closed or (inspect.iscoroutine(event.object) and _is_orbax(event.object))):
            before(event)

    sys.unraisablehook = report


def _is_orbax(coroutine: types.CoroutineType) -> bool:
    return Path(coroutine.cr_code.co_filename).is_relative_to(Path(ocp.__file__).parent)


def reason_of(error: Exception) -> str:
    """What it says, without what is for the library's authors."""
    said = str(error)
    for technical in ("[tensorstore_spec", "See full TensorStore details"):
        said = said.split(technical)[0]
    return said.strip().removesuffix(".")
