"""Running a step again that was not finite: `python -m icre_jax.train --workdir DIR --replay FILE`."""

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from icre_jax.data.pipeline import training_batches
from icre_jax.data.ready import prepare_data
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.numerics import DETERMINISTIC, differences, from_plain, numerics_here
from icre_jax.engine.state import TrainState, find_not_finite
from icre_jax.engine.stored import read_settings
from icre_jax.errors import InputError, join_findings
from icre_jax.files.json_files import parse_json
from icre_jax.machine.screen import Screen
from icre_jax.settings import differences as differences_of_settings
from icre_jax.settings import from_json
from icre_jax.training.divergence import name_not_finite
from icre_jax.training.failure import Failure, no_replay_file, read_failure
from icre_jax.training.run import Run, assemble, keep_galleries, restore

_JAX_NAMES = {"gpu": "cuda"}


def replay(workdir: Path, file: Path, screen: Screen) -> bool:
    """Train again from the last good checkpoint to the step that failed, and say of each number whether it is finite.

    Nothing is written. On the kind of device that the run had, with its versions and flags, the numbers are the same to
    the last bit (on GPUs with `icre_jax.engine.numerics.DETERMINISTIC` alone); the report says whether.

    Args:
      workdir: of the run.
      file: the replay file it left.
      screen: where the report goes.

    Returns:
      Whether everything was finite this time.

    Raises:
      InputError: not a replay file, one of another run or of another platform, or the checkpoint or the data that it
        needs is gone.
    """
    failure = read_failure(file)
    workdir = workdir.expanduser().resolve()
    settings = read_settings(workdir)
    try:
        changed = differences_of_settings(from_json(failure.settings), settings)
    except InputError as error:
        raise no_replay_file(file, f"settings: {error}") from error
    if changed:
        raise InputError(f"{file} is of another run than {workdir}:\n{join_findings(changed)}")
    screen.say(_compare_numerics(file, failure))
    prepared = prepare_data(settings.data, screen)
    if prepared.fingerprint != failure.data_fingerprint:
        raise InputError(
            f"{file} is of a run on data with fingerprint {failure.data_fingerprint[:12]}; {prepared.folder} has "
            f"{prepared.fingerprint[:12]}. Replay it with the data of the run."
        )
    run = assemble(settings, workdir, prepared)
    _require_batch(run, file, failure)
    with contextlib.closing(
        Checkpoints(workdir, best_metric=settings.checkpoint.best_metric, read_only=True)
    ) as checkpoints:
        run = keep_galleries(run, checkpoints, failure.checkpoint_step, screen)
        state = restore(run, checkpoints, step=failure.checkpoint_step)
    screen.say(
        f"Replaying step {failure.step} from the checkpoint of step {failure.checkpoint_step}: {failure.finding}."
    )
    state, earlier = _approach(run, state, failure, screen)
    if earlier:
        screen.say(
            f"{earlier} already, before the step of the file: this device computes other numbers than the run's."
        )
        return False
    before = find_not_finite(state)
    screen.say(f"The state before step {failure.step} is finite." if not before else f"Not finite before: {before}")
    state, metrics = run.step(state, {"image": failure.image, "label": failure.label, "modality": failure.modality})
    numbers = {name: float(value) for name, value in metrics.items()}
    screen.console.print(_table(failure, numbers))
    after = find_not_finite(state)
    if after:
        screen.say(f"Arrays that are not finite after the step: {len(after)}\n{join_findings(after)}")
    screen.say(f"Images of the batch:\n{join_findings(failure.path.tolist(), limit=len(failure.path))}")
    return not after and name_not_finite(numbers) is None


def _require_batch(run: Run, file: Path, failure: Failure) -> None:
    """Refuse a step or a batch that the run cannot have.

    Raises:
      InputError: says which.
    """
    shape, size = failure.image.shape, (run.plan.batch_size, *run.settings.data.image_size, 3)
    findings = []
    if failure.step > run.num_steps:
        findings.append(f"step is {failure.step}; the run has {run.num_steps}")
    if shape != size:
        findings.append(f"image is of shape {list(shape)}; a batch of the run is {list(size)}")
    if failure.label.max() >= run.plan.num_classes:
        findings.append(f"label holds {failure.label.max()}; the run has the classes 0 to {run.plan.num_classes - 1}")
    if findings:
        raise InputError(f"{file} is of another run than {run.workdir}:\n{join_findings(findings)}")


def _compare_numerics(file: Path, failure: Failure) -> str:
    """What to expect of the bits.

    Raises:
      InputError: the run was on another platform, whose numbers say nothing of what happened on this one.
    """
    if not failure.numerics:
        return "The file does not say on which device the run was; on another kind the numbers differ."
    now = numerics_here()
    try:
        then = from_plain(parse_json(failure.numerics))
    except (ValueError, KeyError, TypeError) as error:
        raise no_replay_file(file, f"numerics: {error}") from error
    if then.platform != now.platform:
        raise InputError(
            f"{file} is of a run on {then.num_devices} x {then.device_kind} ({then.platform}), and this is "
            f"{now.num_devices} x {now.device_kind} ({now.platform}), which multiplies and adds in another way: what "
            f"is finite here need not be finite there. Replay it on a machine with {then.device_kind}; where JAX sees "
            f"several platforms, JAX_PLATFORMS={_JAX_NAMES.get(then.platform, then.platform)} chooses."
        )
    changed = differences(then, now)
    if changed:
        return f"Not where the run was, so other bits are no surprise:\n{join_findings(changed)}"
    if not then.deterministic:
        return (
            f"The run was on a GPU without XLA_FLAGS={DETERMINISTIC}: its last bits were a matter of chance, and so "
            "are these."
        )
    return "Same kind of device, same versions and flags as the run: the same bits are expected."


def _approach(run: Run, state: TrainState, failure: Failure, screen: Screen) -> tuple[TrainState, str | None]:
    """The state before the step that failed; and what was not finite on the way, where there should be nothing."""
    settings, start = run.settings, failure.checkpoint_step
    batches = training_batches(
        run.source, run.plan, data=settings.data, settings=settings.augment, seed=settings.seed, start=start
    )
    with contextlib.closing(batches):
        for step in range(start + 1, failure.step):
            batch = next(batches)
            state, metrics = run.step(state, {name: batch[name] for name in ("image", "label", "modality")})
            finding = name_not_finite(metrics)
            if finding:
                return state, f"{finding} at step {step}"
            screen.advance("steps after the checkpoint", step - start, failure.step - 1 - start)
        batch = next(batches)
    if not np.array_equal(batch["image"], failure.image):
        screen.say("The data now gives another batch for this step; that of the file is used.")
    return state, None


def _table(failure: Failure, numbers: dict[str, Any]) -> Table:
    table = Table(title=f"step {failure.step}")
    for column in ("", "the run", "now", "finite", "same bits"):
        table.add_column(column, justify="left" if not column else "right")
    for name, value in numbers.items():
        then = failure.metrics.get(name, math.nan)
        same = np.float64(then).tobytes() == np.float64(value).tobytes() or (math.isnan(then) and math.isnan(value))
        table.add_row(
            name, f"{then:.6g}", f"{value:.6g}", "yes" if math.isfinite(value) else "NO", "yes" if same else "no"
        )
    return table
