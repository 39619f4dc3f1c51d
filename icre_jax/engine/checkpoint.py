"""Checkpoints with orbax: the latest and the best, each with what is needed to trust it.

Items of one checkpoint, so that evaluation and export read only theirs: "params", "batch_stats", "opt_state", with
running averages "ema" (arrays), and "facts" (JSON: settings, id -> class map, fingerprint of the data). Weights without
a run have no "opt_state". SHA256SUMS lists the hash of every file of the step and is part of the same save; nothing is
read from a step before all of its files were compared with it.
"""

import contextlib
import functools
import inspect
import math
import shutil
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from icre_jax.engine.state import TrainState
from icre_jax.engine.sums import SUMS, find_damage, write_sums
from icre_jax.errors import InputError, NotSavedError

_ARRAYS = ("params", "batch_stats", "opt_state", "ema")
# Beyond the arrays themselves: metadata, and room for the log and the results that follow.
_SPARE_BYTES = 16 * 2**20
# Where a step that is no longer kept goes before it is deleted, in one rename: a kill never leaves half a step.
_DELETED = ".deleted"
# What orbax notes of a step after the sums were taken. No number is read from them.
_SCORES = "metrics"  # orbax's name of the item that holds them
_NOTES = ("_CHECKPOINT_METADATA", "commit_success.txt")
# Among the facts of a step that was saved with sums: whose list is gone is damaged, and not of an older version.
_SUMMED = "sha256sums"
# How often a reader that wants the latest looks again.
_MOST_TRIES = 10

# Errors in a read that say nothing of what is read.
_NOT_DAMAGE = (InputError, MemoryError, jax.errors.JaxRuntimeError)

Read = TypeVar("Read")


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
        self._read_only = read_only
        self._compared: set[int] = set()
        if read_only and not self._folder.is_dir():
            raise InputError(f"{workdir} holds no checkpoints. Give the workdir of a run that was trained.")

        def metric(scores: dict[str, float]) -> float:
            return scores.get(best_metric, -math.inf)  # saved without having been scored

        # `best_fn` makes orbax store the scores. Not with `max_to_keep`: that deletes the newest steps when others are
        # better.
        policy = policies.AnyPreservationPolicy(
            [policies.LatestN(keep_latest), policies.BestN(get_metric_fn=metric, n=1)]
        )
        options = ocp.CheckpointManagerOptions(
            best_fn=metric,
            preservation_policy=policy,
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,  # with another number than 0 orbax warns that it takes 0
            create=not read_only,
            cleanup_tmp_directories=False,  # it would do that in a thread, and trip over a process that ends at once
            todelete_subdir=None if read_only else _DELETED,
            lightweight_initialize=read_only,  # a damaged step is not to keep a reader from the others
            temporary_path_class=_Summed,
        )
        if read_only:
            self._manager = _open_for_reading(self._folder, options)
        else:
            for step in _listed(self._folder):
                self._require_scores(step)  # orbax reads all of them now
            self._manager = _open_for_writing(self._folder, options)
        if not read_only and jax.process_index() == 0:
            # What a process that was killed left of a save, and of a deletion.
            for left in (self._folder / _DELETED, *self._folder.glob("*.orbax-checkpoint-tmp*")):
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
        self._compared.discard(step)
        facts = {**facts, _SUMMED: True}
        items: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        try:
            with _quiet_orbax():
                self._manager.save(
                    step, args=ocp.args.Composite(facts=ocp.args.JsonSave(facts), **items), metrics=scores, force=True
                )
                self._manager.wait_until_finished()
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as the second
            self._clear_failed(step)
            raise NotSavedError(
                f"The checkpoint of step {step} could not be written to {self._folder}: {_reason(error)}. Older "
                f"checkpoints are intact: {self.steps}."
            ) from error
        finally:
            shutil.rmtree(self._folder / _DELETED, ignore_errors=True)

    def _clear_failed(self, step: int) -> None:
        """Delete what a failed save left, which would keep the space, and look at the folder anew."""
        with contextlib.suppress(OSError, ValueError), _quiet_orbax():
            self._manager.wait_until_finished()  # other arrays may still be on their way
        for torn in self._folder.glob(f"{step}.*"):
            shutil.rmtree(torn, ignore_errors=True)
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
        return {name: value for name, value in facts.items() if name != _SUMMED}

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
        _drop_late_reports()
        try:
            with _quiet_orbax():
                if step not in self._compared:
                    self._require_whole(step)
                    self._compared.add(step)
                yield
        except Exception as error:
            # Half a step may look damaged, or like one of another network.
            if not self._is_there(step):
                raise self._replaced(step) from error
            raise
        if not self._is_there(step):
            raise self._replaced(step)

    def _require_whole(self, step: int) -> None:
        """Compare every file of a step with its sums."""
        if findings := self._find_damage(step):
            raise self._damaged(step, findings[0] + (f", and {len(findings) - 1} more" if findings[1:] else ""))
        if not (self._folder / str(step) / SUMS).exists():
            _say_unsummed(self._folder / str(step))

    def _find_damage(self, step: int) -> list[str]:
        """What is not as it was saved, in words; nothing of a step of an older version, of which nobody knows."""
        folder = self._folder / str(step)
        if (folder / SUMS).exists():
            return find_damage(folder, leave_out=_NOTES)
        try:
            facts = self._manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
        except _NOT_DAMAGE:
            raise
        except Exception as error:
            return [f"its facts cannot be read ({_reason(error)})"]
        return [f"{SUMS} is missing"] if _SUMMED in facts else []

    def _require_scores(self, step: int) -> None:
        """Refuse scores that are not as they were saved: by them the best step is chosen, and others are deleted."""
        folder = self._folder / str(step)
        if (folder / SUMS).exists() and (findings := find_damage(folder, leave_out=_NOTES, only=f"{_SCORES}/")):
            raise InputError(
                f"The checkpoint of step {step} in {self._folder} is damaged: {findings[0]}. Delete {folder} and start "
                "the same command again, which goes on with the others."
            )

    def _scores(self, step: int) -> dict[str, float]:
        self._require_scores(step)
        with self._explain(step):
            return self._manager.metrics(step) or {}

    def _is_there(self, step: int) -> bool:
        return (self._folder / str(step)).is_dir()

    def _replaced(self, step: int) -> ReplacedError:
        there = _listed(self._folder)
        return ReplacedError(
            f"The checkpoint of step {step} in {self._folder} is gone: training, which goes on there, has replaced it "
            f"while it was read. There are {there} now; start the same command again for one of these."
        )

    def _has_ema(self, step: int) -> bool:
        return (self._folder / str(step) / "ema").is_dir()

    def _restore(self, step: int, **items: Any) -> dict[str, Any]:
        with self._explain(step):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
            return {name: restored[name] for name in items}

    def _read_facts(self, step: int) -> dict[str, Any]:
        facts = self._restore(step, facts=ocp.args.JsonRestore())["facts"]
        if not isinstance(facts, dict):
            raise self._damaged(step, "its facts are no object")
        return facts

    @contextlib.contextmanager
    def _explain(self, step: int) -> Iterator[None]:
        """What orbax says of a step that is damaged where no sums are, as a message for people."""
        try:
            yield
        except _NOT_DAMAGE:
            raise
        except Exception as error:  # garbled compression raises nothing more special
            notes = self._folder / str(step) / _NOTES[0]
            hint = f" (its arrays are as they were saved: try without {notes}, which nothing needs)"
            compared = step in self._compared and (notes.parent / SUMS).exists()
            raise self._damaged(step, _reason(error) + (hint if compared else "")) from error

    def _damaged(self, step: int, finding: str) -> InputError:
        folder = self._folder / str(step)
        other = self._next_whole(step)
        if other is None:
            way = "No other checkpoint there is whole. Take another copy of the run, or train again in another workdir."
        elif self._read_only:
            way = (
                f"The next one that is whole is of step {other}: take it with --checkpoint {other}, or delete {folder} "
                "where a command takes the latest."
            )
        else:
            way = f"Delete {folder} and start the same command again: it continues after step {other}, which is whole."
        return InputError(f"The checkpoint of step {step} in {self._folder} is damaged: {finding}. {way}")

    def _next_whole(self, step: int) -> int | None:
        """The newest older step that is as it was saved; of newer ones if there is none."""
        older, newer = ([other for other in self.steps if sign * other > sign * step] for sign in (-1, 1))
        for other in (*reversed(older), *reversed(newer)):
            with contextlib.suppress(InputError, OSError):  # it may be damaged too, or be replaced right now
                if not self._find_damage(other):
                    return other
        return None

    def _metadata(self, step: int, names: Iterable[str]) -> dict[str, Any]:
        """Item -> what was saved of it, as shapes. Asked once for all: orbax looks at every item each time."""
        with self._explain(step):
            saved = self._manager.item_metadata(step)
            items = {name: saved[name] for name in names}
        return {name: item.tree if hasattr(item, "tree") else item for name, item in items.items()}

    def _check_shapes(self, step: int, like: dict[str, Any]) -> None:
        """Compare names and shapes before reading: orbax itself would say less, or pad and cut."""
        _require_shapes(
            f"The checkpoint of step {step} in {self._folder}",
            self._metadata(step, like),
            like,
            "Use the config it was trained with, or another workdir.",
        )


class _Summed(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """A step under its temporary name, whose sums are taken when nothing but its final name is missing.

    orbax makes the step of process 0 alone final, after all processes have written.
    """

    def finalize(self) -> Any:
        """Write the sums and give the step its name; what the base class gives, which depends on orbax's version."""
        if self.get_final().name.isdecimal():  # an item of a step is written the same way
            write_sums(Path(self.get()), leave_out=_NOTES)
        return super().finalize()


def _open(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    # Handlers are named, so that a manager that has not saved anything yet can read metadata too.
    handlers: dict[str, Any] = {name: ocp.StandardCheckpointHandler() for name in _ARRAYS}
    handlers["facts"] = ocp.JsonCheckpointHandler()
    with _quiet_orbax():
        return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def _listed(folder: Path) -> list[int]:
    """The steps in a folder, ascending, by their names alone."""
    return sorted(int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal())


def _open_for_writing(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    try:
        return _open(folder, options)
    except ValueError as error:
        raise InputError(
            f"The checkpoints in {folder} cannot be listed: {_reason(error)}. What orbax noted of one of them is "
            f"damaged: delete {folder / '*' / _NOTES[0]}, which nothing needs, and start the same command again."
        ) from error


def _open_for_reading(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    """The manager of a folder where training may go on: steps that go while orbax lists them are errors, or missed."""
    for tries_left in reversed(range(_MOST_TRIES)):
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


def _trees(state: TrainState) -> dict[str, Any]:
    """The parts of a state that are saved, by name; averages only where they are kept."""
    return {name: getattr(state, name) for name in _ARRAYS if getattr(state, name) is not None}


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
    for tries_left in reversed(range(_MOST_TRIES)):
        with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
            if not checkpoints.steps:
                break
            try:
                return read(checkpoints, checkpoints.steps[-1] if step is None else step)
            except ReplacedError:
                if step is not None or not tries_left:
                    raise
    raise InputError(f"{workdir} holds no finished checkpoint yet.")


def write_variables(folder: Path, variables: dict[str, Any]) -> None:
    """Write {"params", "batch_stats"} as one orbax checkpoint that needs nothing of ours to be read."""
    with ocp.StandardCheckpointer() as writer:
        writer.save(folder.resolve(), variables)


def read_variables(folder: Path, like: dict[str, Any] | None = None) -> dict[str, Any]:
    """What `write_variables` wrote.

    Args:
      folder: that was written.
      like: shapes, types and shardings to restore to. Size, names and shapes of what is there are compared with them
        before any array is read. None takes it as it is.

    Raises:
      InputError: it is damaged, or of another network than `like`.
    """
    folder = folder.resolve()
    damaged = "Export the run again, or take another copy."
    if like is not None:
        largest = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like)) + _SPARE_BYTES
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if size > largest:
            raise InputError(
                f"{folder} holds {size:,} bytes, and this network has at most {largest:,}: it is of another network "
                "than its config.json. Take both from one export."
            )
    try:
        with _quiet_orbax(), ocp.StandardCheckpointer() as reader:
            if like is None:
                return reader.restore(folder)
            if not (folder / "_METADATA").is_file():  # orbax would take it for a network without arrays
                raise FileNotFoundError("it has no _METADATA")
            saved = reader.metadata(folder).item_metadata
            saved = saved.tree if hasattr(saved, "tree") else saved
            _require_shapes(str(folder), saved, like, "Take it and its config.json from one export.")
            return reader.restore(folder, like)
    except _NOT_DAMAGE:
        raise
    except Exception as error:  # garbled compression raises nothing more special
        raise InputError(f"{folder} is no network, or a damaged one: {_reason(error)}. {damaged}") from error


def _require_shapes(what: str, saved: Any, wanted: Any, fix: str) -> None:
    there, needed = _shapes(saved), _shapes(wanted)
    if there == needed:
        return
    keys = sorted(key for key in there.keys() | needed.keys() if there.get(key) != needed.get(key))
    lines = [f"  {key[1:]}: saved {there.get(key)}, this network {needed.get(key)}" for key in keys[:10]]
    raise InputError(f"{what} is of another network; {len(keys)} arrays differ:\n" + "\n".join(lines) + f"\n{fix}")


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Keep warnings and tracebacks of its threads off the screen: what fails raises, and is said in one message."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@functools.cache  # once in a process
def _say_unsummed(folder: Path) -> None:
    if jax.process_index() == 0:
        print(
            f"{folder} is of an older version and has no {SUMS}: whether it is damaged is not known.", file=sys.stderr
        )


@functools.cache  # once in a process
def _drop_late_reports() -> None:
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


def _reason(error: Exception) -> str:
    said = str(error)
    for technical in ("[tensorstore_spec", "See full TensorStore details"):  # what follows is for the library's authors
        said = said.split(technical)[0]
    return said.strip().removesuffix(".")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))[0]
    return {_key(path): tuple(leaf.shape) for path, leaf in leaves if hasattr(leaf, "shape")}


def _key(path: tuple[Any, ...]) -> str:
    # Saved trees spell attributes and positions as dictionary keys.
    parts = (getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))) for entry in path)
    return "".join(f".{part}" for part in parts)
