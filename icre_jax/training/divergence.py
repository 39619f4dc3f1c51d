"""The end of a run whose numbers are not finite: what is said, and what is kept of the step."""

import contextlib
import json
import math
from typing import Any

import jax
import numpy as np

from icre_jax.data.pipeline import training_batches
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.numerics import numerics_here
from icre_jax.engine.state import TrainState, find_not_finite
from icre_jax.errors import DivergenceError, join_findings
from icre_jax.machine import hosts
from icre_jax.settings import to_json
from icre_jax.training.failure import Failure
from icre_jax.training.run import Run


class FiniteWatch:
    """Looks at the numbers of a step when the next one is under way, so that the device never waits for the host."""

    def __init__(self, run: Run, checkpoints: Checkpoints):
        """Take the run, and the checkpoints from which a step can be run again."""
        self._run, self._checkpoints = run, checkpoints
        self._step, self._batch, self._metrics = 0, dict[str, Any](), dict[str, Any]()

    def follow(self, step: int, batch: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Check the step before, and hold this one: its number, batch and metrics.

        Raises:
          DivergenceError: a number of the step before is not finite.
        """
        self.check()
        self._step, self._batch, self._metrics = step, batch, metrics

    def check(self) -> None:
        """Check the step that is held; waits for it.

        Raises:
          DivergenceError: one of its numbers is not finite.
        """
        self._metrics = jax.device_get(self._metrics)  # all at once
        finding = name_not_finite(self._metrics)
        if finding:
            self._fail(finding)

    def check_state(self, state: TrainState) -> None:
        """Check the state after the step that is held: an update can leave the finite numbers where the loss does not.

        Raises:
          DivergenceError: an array of it is not finite.
        """
        self.check()
        names = find_not_finite(state) if self._step else []  # before the first step there is nothing to run again
        if names:
            more = f" (and {len(names) - 1} more arrays)" if len(names) > 1 else ""
            self._fail(f"After the update {names[0]}{more} is not finite")

    def _fail(self, finding: str) -> None:
        run, step, checkpoint_step = self._run, self._step, self._checkpoints.latest_step
        assert checkpoint_step is not None  # a run saves its state before its first step
        paths = [str(path) for path in run.batch_paths(step - 1)]
        batch = self._batch if run.rows is None else _make_batch(run, step)
        failure = Failure(
            step=step,
            checkpoint_step=checkpoint_step,
            finding=finding,
            path=np.array(paths),
            **{name: np.asarray(batch[name]) for name in ("image", "label", "modality")},
            metrics={name: float(value) for name, value in self._metrics.items()},
            settings=to_json(run.settings),
            data_fingerprint=run.prepared.fingerprint,
            numerics=json.dumps(numerics_here().plain()),
        )
        file = run.workdir / f"replay_step_{step}.npz"
        try:
            if hosts.is_first():
                failure.write(file)
            replay = f"Run the step again: python -m icre_jax.train --workdir {run.workdir} --replay {file}"
        except OSError as error:
            replay = f"The replay file {file} could not be written: {error}."
        raise DivergenceError(
            f"{finding} at step {step}; training stopped. The last good checkpoint, of step {checkpoint_step}, is in "
            f"{run.workdir}. A smaller learning rate or a longer warm-up usually helps (optimizer.*, "
            f"schedule.warmup_epochs).\n{replay}\nImages of the batch:\n{join_findings(paths)}"
        )


def _make_batch(run: Run, step: int) -> dict[str, Any]:
    """The whole batch of a step, where each process has loaded its own rows: it is a function of (seed, position)."""
    settings = run.settings
    batches = training_batches(
        run.source, run.plan, data=settings.data, settings=settings.augment, seed=settings.seed, start=step - 1
    )
    with contextlib.closing(batches):
        return next(batches)


def name_not_finite(metrics: dict[str, Any]) -> str | None:
    """The first number that is not finite, as "loss/icg is nan". Parts first: they tell more than their sum."""
    for name in sorted(metrics, key=lambda name: (not name.startswith("loss/"), name)):
        value = float(metrics[name])
        if not math.isfinite(value):
            return f"{name} is {value}"
    return None
