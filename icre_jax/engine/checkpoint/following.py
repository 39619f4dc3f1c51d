"""Reading from a run that may be training on: a checkpoint that was replaced meanwhile is followed by the next one."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from icre_jax.engine.checkpoint.folder import Checkpoints, ReplacedError
from icre_jax.engine.checkpoint.opening import MOST_TRIES
from icre_jax.errors import InputError

Read = TypeVar("Read")


def read_checkpoint(workdir: Path, step: int | None, read: Callable[[Checkpoints, int], Read]) -> Read:
    """What `read` takes from one checkpoint of a run, which may be training on meanwhile.

    Args:
      workdir: of the run.
      step: which checkpoint; None for the latest, and for the next one if that is replaced while it is read.
      read: (checkpoints, step) -> anything; called again for the next one, so it must not talk or write.

    Raises:
      InputError: no checkpoint at all, or not the one asked for; it is damaged; or it was replaced while it was read.
      Whatever `read` raises.
    """
    for tries_left in reversed(range(MOST_TRIES)):
        with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
            if not checkpoints.steps:
                break
            try:
                return read(checkpoints, checkpoints.steps[-1] if step is None else step)
            except ReplacedError:
                if step is not None or not tries_left:
                    raise
    raise InputError(f"{workdir} holds no finished checkpoint yet.")
