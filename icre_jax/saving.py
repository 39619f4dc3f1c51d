"""Saving the state of a run, and what happens when that fails."""

from icre_jax import hosts
from icre_jax.checkpoint import Checkpoints
from icre_jax.errors import NotSavedError
from icre_jax.run import Run
from icre_jax.runlog import RunLog, Screen
from icre_jax.state import TrainState


def save(
    run: Run, state: TrainState, checkpoints: Checkpoints, log: RunLog, scores: dict[str, float] | None = None
) -> None:
    """Write the state; returns when it is on disk.

    Args:
      run: the run.
      state: to save.
      checkpoints: where to.
      log: of the run. Written first: no checkpoint knows of a step that the log lacks.
      scores: of this very state by name, if it was scored.

    Raises:
      NotSavedError: the disk is full or not writable; older checkpoints are intact.
    """
    hosts.everywhere(log.require_written)
    # Saving is a common act: a host that finds no room must not leave the others waiting for it.
    hosts.everywhere(lambda: checkpoints.require_space(state))
    checkpoints.save(state, run.facts, scores)


def try_to_save(
    run: Run, state: TrainState, checkpoints: Checkpoints, log: RunLog, screen: Screen, scores: dict[str, float] | None
) -> None:
    """`save` on the way: a disk that is full now may have space by the next time, so training goes on."""
    try:
        save(run, state, checkpoints, log, scores)
    except NotSavedError as error:
        screen.say(f"warning: {error} Training goes on; the next save tries again. Free space until then.")
