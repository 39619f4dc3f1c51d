"""orbax's manager of a folder of checkpoints: what it keeps, how a step gets its name, and a folder that changes."""

import inspect
import math
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from icre_jax.engine.checkpoint.damage import NOTES
from icre_jax.engine.checkpoint.quiet import quiet_orbax, reason_of
from icre_jax.errors import InputError
from icre_jax.files import sync, sync_folder
from icre_jax.sums import write_sums

ARRAYS = ("params", "batch_stats", "opt_state", "ema")
# Where a step that is no longer kept goes before it is deleted, in one rename: a kill never leaves half a step.
DELETED = ".deleted"
# How often a reader that wants the latest looks again.
MOST_TRIES = 10
# Errors of the last act of the save under way, see `Checkpoints.failed_last`.
failed_last: list[OSError] = []


def open_to_read(folder: Path, best_metric: str) -> ocp.CheckpointManager:
    """The manager of a folder where training may go on; nothing is created or cleaned.

    Raises:
      InputError: the folder changes faster than it can be listed.
    """
    # Steps that go while orbax lists them are errors, or missed.
    options = _options(best_metric, read_only=True)
    for tries_left in reversed(range(MOST_TRIES)):
        try:
            manager = _open(folder, options)
        except (FileNotFoundError, NotADirectoryError) as error:
            if not tries_left:
                raise InputError(
                    f"The checkpoints in {folder} change faster than they can be listed ({error}). Start the same "
                    "command again."
                ) from error
            continue
        if manager.all_steps() or not tries_left:
            break
        manager.close()
    return manager


def open_to_write(folder: Path, best_metric: str, *, keep_latest: int) -> ocp.CheckpointManager:
    """The manager of a folder, which is created; it keeps the latest steps and the best one.

    Raises:
      InputError: what orbax noted of a step is damaged.
    """
    try:
        return _open(folder, _options(best_metric, keep_latest=keep_latest))
    except ValueError as error:
        raise InputError(
            f"The checkpoints in {folder} cannot be listed: {reason_of(error)}. What orbax noted of one of them is "
            f"damaged: delete {folder / '*' / NOTES[0]}, which nothing needs, and start the same command again."
        ) from error


def listed(folder: Path) -> list[int]:
    """The steps in a folder, ascending, by their names alone."""
    return sorted(int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal())


def _options(best_metric: str, *, keep_latest: int = 1, read_only: bool = False) -> ocp.CheckpointManagerOptions:
    def metric(scores: dict[str, float]) -> float:
        return scores.get(best_metric, -math.inf)  # saved without having been scored

    # `best_fn` makes orbax store the scores. Not with `max_to_keep`: that deletes the newest steps when others are
    # better.
    policy = policies.AnyPreservationPolicy([policies.LatestN(keep_latest), policies.BestN(get_metric_fn=metric, n=1)])
    return ocp.CheckpointManagerOptions(
        best_fn=metric,
        preservation_policy=policy,
        read_only=read_only,
        save_interval_steps=0 if read_only else 1,  # with another number than 0 orbax warns that it takes 0
        create=not read_only,
        cleanup_tmp_directories=False,  # it would do that in a thread, and trip over a process that ends at once
        todelete_subdir=None if read_only else DELETED,
        lightweight_initialize=read_only,  # a damaged step is not to keep a reader from the others
        temporary_path_class=_Summed,
        # In a thread, a process that cannot write would wait for the others before it says so; and orbax waits for the
        # thread by the time of day, so that a save would fail where the clock is set meanwhile.
        enable_async_checkpointing=False,
    )


def _open(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    # Handlers are named, so that a manager that has not saved anything yet can read metadata too.
    handlers: dict[str, Any] = {name: ocp.StandardCheckpointHandler() for name in ARRAYS}
    handlers["facts"] = ocp.JsonCheckpointHandler()
    with quiet_orbax():
        return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


class _Summed(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """A step under its temporary name, whose sums are taken when nothing but its final name is missing.

    orbax makes the step of process 0 alone final, after all processes have written. It is on the disk, not only on its
    way there, before it gets its name, and the name is before the step that it replaces loses its own: a machine that
    loses its power has one of them whole.
    """

    def finalize(self) -> Any:
        """Write the sums and give the step its name; what the base class gives, which depends on orbax's version."""
        if not self.get_final().name.isdecimal():  # an item of a step is written the same way
            return super().finalize()
        try:
            write_sums(Path(self.get()), leave_out=NOTES)
            sync_folder(Path(self.get()))
            named = super().finalize()
            if inspect.isawaitable(named):
                return self._sync_name(named)
            sync(Path(self.get_final()).parent)
            return named
        except OSError as error:
            failed_last.append(error)
            raise

    async def _sync_name(self, named: Awaitable[Any]) -> Any:
        given = await named
        sync(Path(self.get_final()).parent)
        return given
