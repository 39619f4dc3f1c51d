"""The checkpoints of one work folder.

Items of one checkpoint, so that evaluation and export read only theirs: "params", "batch_stats", "opt_state", with
running averages "ema" (arrays), and "facts" (JSON: settings, id -> class map, fingerprint of the data). Weights without
a run have no "opt_state". SHA256SUMS lists the hash of every file of the step and is part of the same save; nothing is
read from a step before all of its files were compared with it.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from icre_jax.engine.checkpoint.damage import SUMMED, Damage
from icre_jax.engine.checkpoint.opening import ARRAYS, DELETED, failed_last, listed, open_to_read, open_to_write
from icre_jax.engine.checkpoint.quiet import drop_late_reports, quiet_orbax, reason_of
from icre_jax.engine.checkpoint.shapes import require_shapes
from icre_jax.engine.state import TrainState
from icre_jax.errors import InputError, NotSavedError

# Beyond the arrays themselves: metadata, and room for the log and the results that follow.
_SPARE_BYTES = 16 * 2**20


class ReplacedError(InputError):
    """A checkpoint that was there lost its name while it was read."""


class Checkpoints:
    """The checkpoints of one work folder.

    The latest `keep_latest` steps are kept, and the best one by `best_metric`. A checkpoint appears under its final
    name when it is complete, sums included, and loses it before it is deleted; what an interrupted process left of
    either is removed when the folder is opened for writing, what a failed save left at once.

    A step is compared with its sums before the first read of it, whole, whatever is read. One of an older version,
    which has none, is taken, and a line on standard error says so.
    """

    def __init__(self, workdir: Path, *, keep_latest: int = 1, best_metric: str = "", read_only: bool = False):
        """Open `workdir`/checkpoints.

        Args:
          workdir: work folder of a run.
          keep_latest: how many of the newest steps to keep.
          best_metric: key of the scores given to `save` by which the best step is chosen (higher is better).
          read_only: for evaluation; nothing is created or cleaned.

        Raises:
          InputError: of a read-only folder, that it is not there; else that the scores of a step are damaged, by which
            the best one is chosen.
        """
        self._folder = workdir.resolve() / "checkpoints"  # orbax refuses relative paths, and only in its save thread
        self._best_metric = best_metric
        if read_only and not self._folder.is_dir():
            raise InputError(f"{workdir} holds no checkpoints. Give the workdir of a run that was trained.")
        self._damage = Damage(self._folder, lambda: listed(self._folder), self._read_raw_facts, read_only=read_only)
        if read_only:
            self._manager = open_to_read(self._folder, best_metric)
        else:
            for step in listed(self._folder):
                self._damage.require_scores(step)  # orbax reads all of them now
            self._manager = open_to_write(self._folder, best_metric, keep_latest=keep_latest)
        if not read_only and jax.process_index() == 0:
            # What a process that was killed left of a save, and of a deletion.
            for left in (self._folder / DELETED, *self._folder.glob("*.orbax-checkpoint-tmp*")):
                shutil.rmtree(left, ignore_errors=True)

    def save(self, state: TrainState, facts: dict[str, Any], scores: dict[str, float] | None = None) -> None:
        """Write the state under its step; returns when it is on disk.

        Args:
          state: to save.
          facts: JSON-able.
          scores: of this very state by name, if it was scored.

        Raises:
          NotSavedError: the disk is full or not writable. Older checkpoints are intact, nothing is left of this one,
            and the next call may do better.
        """
        self._save(int(state.step), _trees(state), facts, scores or {})

    def save_variables(self, step: int, variables: dict[str, Any], facts: dict[str, Any]) -> None:
        """Write only {"params", "batch_stats"}, for weights that no training state belongs to; otherwise as `save`."""
        self._save(step, variables, facts, {})

    def require_space(self, state: TrainState) -> None:
        """Look whether the disk has room for a state, as `save` does too: several hosts must agree before they begin.

        Raises:
          NotSavedError: it has not.
        """
        self._require_space(int(state.step), _trees(state))

    def _require_space(self, step: int, trees: dict[str, Any]) -> None:
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _SPARE_BYTES
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise NotSavedError(
                f"The disk of {self._folder} has {free / 2**20:.0f} MiB free; the checkpoint of step {step} needs "
                f"{needed / 2**20:.0f} MiB. Older checkpoints are intact: {self.steps}."
            )

    def _save(self, step: int, trees: dict[str, Any], facts: dict[str, Any], scores: dict[str, float]) -> None:
        self._require_space(step, trees)
        self._saving = step
        failed_last.clear()
        self._damage.forget(step)
        facts = {**facts, SUMMED: True}
        items: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        try:
            with quiet_orbax():
                self._manager.save(
                    step, args=ocp.args.Composite(facts=ocp.args.JsonSave(facts), **items), metrics=scores, force=True
                )
                self._manager.wait_until_finished()
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as the second
            self._clear_failed(step)
            raise NotSavedError(self._describe_failed(step, error)) from error
        finally:
            shutil.rmtree(self._folder / DELETED, ignore_errors=True)

    def failed_last(self) -> str | None:
        """Why the last act of a save under way failed in this process, for others that wait; None if it has not.

        orbax waits for all processes before it passes that on, and those wait for this one.
        """
        if not failed_last:
            return None
        self._clear_failed(self._saving)
        return self._describe_failed(self._saving, failed_last[0])

    def _describe_failed(self, step: int, error: Exception) -> str:
        return (
            f"The checkpoint of step {step} could not be written to {self._folder}: {reason_of(error)}. Older "
            f"checkpoints are intact: {listed(self._folder)}."
        )

    def _clear_failed(self, step: int) -> None:
        """Delete what a failed save left, which would keep the space, and look at the folder anew."""
        several = jax.process_count() > 1  # orbax would wait for the others, who do not come
        with contextlib.suppress(OSError, ValueError), quiet_orbax():
            if not several:
                self._manager.wait_until_finished()  # other arrays may still be on their way
        for torn in self._folder.glob(f"{step}.*"):
            shutil.rmtree(torn, ignore_errors=True)
        if not several:
            self._manager.reload()  # orbax has already struck out the steps that this one was to replace

    @property
    def steps(self) -> list[int]:
        """Saved steps, ascending."""
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """The newest saved step; None in a new folder."""
        return self.steps[-1] if self.steps else None

    @property
    def best_step(self) -> int | None:
        """The saved step with the highest `best_metric` (the newest of equals); None if no saved step was scored."""
        scores = {step: self._scores(step) for step in self.steps}
        scored = [(scores[step][self._best_metric], step) for step in self.steps if self._best_metric in scores[step]]
        return max(scored)[1] if scored else None

    def read_facts(self, step: int) -> dict[str, Any]:
        """The JSON facts of a step."""
        with self._reading(step):
            facts = self._read_facts(step)
        return {name: value for name, value in facts.items() if name != SUMMED}

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The whole state of a step.

        Args:
          step: a saved one.
          like: shapes, types and shardings to restore to (arrays or `jax.ShapeDtypeStruct`).

        Raises:
          InputError: no such step, or arrays of other names or shapes than the network of this config has; or another
            process replaced it meanwhile (`ReplacedError`).
        """
        with self._reading(step):
            self._check_shapes(step, _trees(like))
            trees = self._restore(step, **{name: ocp.args.StandardRestore(tree) for name, tree in _trees(like).items()})
        return like.replace(  # type: ignore[attr-defined]
            step=jax.device_put(jax.numpy.full((), step, jax.numpy.int32), like.step.sharding), **trees
        )

    def restore_variables(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        """Only {"params", "batch_stats"}, for evaluation and export; arguments and errors as in `restore`.

        Of a run that keeps running averages it is these.
        """
        with self._reading(step):
            averaged = self._has_ema(step)
            trees = {"ema": like} if averaged else like
            self._check_shapes(step, trees)
            restored = self._restore(step, **{name: ocp.args.StandardRestore(tree) for name, tree in trees.items()})
            return restored["ema"] if averaged else restored

    def read_variables(self, step: int) -> dict[str, Any]:
        """{"params", "batch_stats"} as they were saved, NumPy arrays: for export, no network needs to be built.

        Of a run that keeps running averages it is these.

        Raises:
          InputError: no such step, or it is damaged; or another process replaced it meanwhile (`ReplacedError`).
        """
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def like(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)

        with self._reading(step):
            names = ("ema",) if self._has_ema(step) else ("params", "batch_stats")
            trees = jax.tree.map(like, self._metadata(step, names), is_leaf=lambda leaf: hasattr(leaf, "shape"))
            restored = self._restore(step, **{name: ocp.args.StandardRestore(tree) for name, tree in trees.items()})
        return jax.tree.map(np.asarray, restored.get("ema", restored))

    def close(self) -> None:
        """Wait for what is being written and let go of the folder."""
        self._manager.close()

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Read a step that another process may take away; what was read counts only if it is still there after that.

        A step loses its name before any of its files is deleted.
        """
        if step not in self.steps:
            raise InputError(f"{self._folder} holds no checkpoint of step {step}; there are {self.steps}.")
        drop_late_reports()
        try:
            with quiet_orbax():
                self._damage.require_whole(step)
                yield
        except Exception as error:
            # Half a step may look damaged, or like one of another network.
            if not self._is_there(step):
                raise self._replaced(step) from error
            raise
        if not self._is_there(step):
            raise self._replaced(step)

    def _scores(self, step: int) -> dict[str, float]:
        self._damage.require_scores(step)
        with self._damage.explain(step):
            return self._manager.metrics(step) or {}

    def _is_there(self, step: int) -> bool:
        return (self._folder / str(step)).is_dir()

    def _replaced(self, step: int) -> ReplacedError:
        there = listed(self._folder)
        return ReplacedError(
            f"The checkpoint of step {step} in {self._folder} is gone: training, which goes on there, has replaced it "
            f"while it was read. There are {there} now; start the same command again for one of these."
        )

    def _has_ema(self, step: int) -> bool:
        return (self._folder / str(step) / "ema").is_dir()

    def _restore(self, step: int, **items: Any) -> dict[str, Any]:
        with self._damage.explain(step):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
            return {name: restored[name] for name in items}

    def _read_raw_facts(self, step: int) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]

    def _read_facts(self, step: int) -> dict[str, Any]:
        facts = self._restore(step, facts=ocp.args.JsonRestore())["facts"]
        if not isinstance(facts, dict):
            raise self._damage.error(step, "its facts are no object")
        return facts

    def _metadata(self, step: int, names: Iterable[str]) -> dict[str, Any]:
        """Item -> what was saved of it, as shapes. Asked once for all: orbax looks at every item each time."""
        with self._damage.explain(step):
            saved = self._manager.item_metadata(step)
            items = {name: saved[name] for name in names}
        return {name: item.tree if hasattr(item, "tree") else item for name, item in items.items()}

    def _check_shapes(self, step: int, like: dict[str, Any]) -> None:
        """Compare names and shapes before reading: orbax itself would say less, or pad and cut."""
        require_shapes(
            f"The checkpoint of step {step} in {self._folder}",
            self._metadata(step, like),
            like,
            "Use the config it was trained with, or another workdir.",
        )


def _trees(state: TrainState) -> dict[str, Any]:
    """The parts of a state that are saved, by name; averages only where they are kept."""
    return {name: getattr(state, name) for name in ARRAYS if getattr(state, name) is not None}
