"""Everything one training run is made of, put together from its settings."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from icre_jax.checkpoint import Checkpoints
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.plan import BalancedPlan, num_batches_per_epoch
from icre_jax.data.prepared import PreparedDataset
from icre_jax.errors import InputError, join_findings
from icre_jax.evals.protocol import Modality
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import ProtocolResult
from icre_jax.evaluate import Evaluator
from icre_jax.optimizer import learning_rates
from icre_jax.parallel import local_rows, make_mesh, make_state, make_train_step
from icre_jax.pretrained import start_from
from icre_jax.program import build_program
from icre_jax.settings import Settings, differences, from_json, parse, to_json
from icre_jax.state import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run.

    Attributes:
      settings: what to do.
      workdir: where everything goes.
      prepared, source, plan: the data, its training records, and which of them make up each batch.
      steps_per_epoch, num_steps: lengths.
      initial_state: before the first step, on the devices.
      step: compiled (state, `rows` of a batch) -> (state, metrics); uses up the state.
      rows: those of each batch that this process loads; None for all.
      rates: parameter group -> learning rate by step.
      evaluators: of the test identities, and of the validation identities where the best checkpoint is chosen by these.
      facts: travel with every checkpoint.
    """

    settings: Settings
    workdir: Path
    prepared: PreparedDataset
    source: RecordSource
    plan: BalancedPlan
    steps_per_epoch: int
    num_steps: int
    initial_state: TrainState
    step: Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]]
    rows: list[int] | None
    rates: dict[str, optax.Schedule]
    evaluators: tuple[Evaluator, ...]
    facts: dict[str, Any]

    def embed(self, state: TrainState) -> list[dict[Modality, Embedded]]:
        """The pictures of each evaluator, in each process; every one takes part."""
        return [evaluator.embed(state.variables) for evaluator in self.evaluators]

    def score(self, embedded: list[dict[Modality, Embedded]]) -> list[ProtocolResult]:
        """The results of all evaluators, those of the test identities first."""
        pairs = zip(self.evaluators, embedded, strict=True)
        return [result for evaluator, images in pairs for result in evaluator.score(images)]

    def batch_paths(self, batch: int) -> np.ndarray:
        """[B] str: files of the pictures of a batch (the first is 0), relative to the data's folder."""
        return self.source.index.path[[slot.record for slot in self.plan.batch(batch)]]


def assemble(settings: Settings, workdir: Path, prepared: PreparedDataset) -> Run:
    """Build a run; nothing is written.

    Raises:
      InputError: the data has too few identities for a batch, or the batch does not spread over the devices.
    """
    source = RecordSource(prepared, settings.data.train_splits)
    sampling = settings.sampling.model_dump()
    steps_per_epoch = num_batches_per_epoch(source.index, **sampling)
    num_steps = steps_per_epoch * settings.schedule.num_epochs
    plan = BalancedPlan(source.index, **sampling, num_batches=num_steps, seed=settings.seed)

    program = build_program(settings, num_classes=plan.num_classes, steps_per_epoch=steps_per_epoch)
    network, tx = program.network, program.tx
    accumulate_steps, ema_decay = program.accumulate_steps, program.ema_decay
    mesh = make_mesh(plan.batch_size, accumulate_steps)
    scored = (False, True) if settings.checkpoint.best_metric.startswith("val/") else (False,)
    return Run(
        settings=settings,
        workdir=workdir,
        prepared=prepared,
        source=source,
        plan=plan,
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        initial_state=make_state(
            mesh,
            settings.seed,
            network=network,
            tx=tx,
            image_size=settings.data.image_size,
            ema=ema_decay is not None,
        ),
        step=make_train_step(
            mesh,
            door=settings.parallel,
            network=network,
            tx=tx,
            objective=program.objective,
            accumulate_steps=accumulate_steps,
            ema_decay=ema_decay,
        ),
        rows=local_rows(mesh, plan.batch_size),
        rates=learning_rates(settings.optimizer, settings.schedule, steps_per_epoch),
        evaluators=tuple(Evaluator(network, prepared, settings, mesh=mesh, validation=which) for which in scored),
        facts={
            "settings": settings.model_dump(mode="json"),
            "class_pids": plan.class_pids.tolist(),
            "data_fingerprint": prepared.fingerprint,
        },
    )


def open_workdir(workdir: Path, settings: Settings) -> Path:
    """Make the folder, or recognise it as that of the same run; its absolute path.

    The config is not written yet (`write_config`): a run that cannot begin must not claim the folder.

    Raises:
      InputError: it cannot be written, or holds a run of other settings.
    """
    workdir = workdir.expanduser().resolve()
    config_file = workdir / "config.json"
    if config_file.is_file():
        changed = differences(from_json(config_file.read_text(encoding="utf-8")), settings)
        if changed:
            raise InputError(
                f"{workdir} holds a run of another config:\n{join_findings(changed)}\n"
                "Use the same settings to continue it, or another --workdir."
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write to the workdir {workdir}: {error}. Choose another --workdir.") from error
    return workdir


def write_config(workdir: Path, settings: Settings) -> None:
    """Write config.json, whole or not at all.

    Raises:
      InputError: the folder cannot be written.
    """
    try:
        # Under another name first: a full disk must not leave half a config. One name, so that a kill leaves one file,
        # which the next start uses up; the caller has locked the folder.
        partial = workdir / ".config.json.partial"
        try:
            partial.write_text(to_json(settings), encoding="utf-8")
            partial.replace(workdir / "config.json")
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write to the workdir {workdir}: {error}. Choose another --workdir.") from error


def _start(run: Run) -> TrainState:
    """The initial state, with the backbone of `settings.pretrained` if there is one."""
    state = run.initial_state
    if run.settings.pretrained is None:
        return state
    variables = start_from(Path(run.settings.pretrained), state.variables)
    # Copies: the step uses up the memory of the state it is given.
    copy = functools.partial(jax.device_put, variables, state.step.sharding, may_alias=False)
    return state.replace(**copy(), ema=None if state.ema is None else copy())  # type: ignore[attr-defined]


def restore(run: Run, checkpoints: Checkpoints, *, step: int | None = None) -> tuple[TrainState, int | None]:
    """The state to continue from and its step; the state to start from and None in a new folder.

    Args:
      run: what it must fit.
      checkpoints: of its workdir.
      step: which checkpoint; None for the latest.

    Raises:
      InputError: no such checkpoint; or it is of other settings or other data, or damaged; or the file of pretrained
        weights of a new run does not fit its backbone.
    """
    step = checkpoints.latest_step if step is None else step
    if step is None:
        return _start(run), None
    saved = checkpoints.read_facts(step)
    if "settings" not in saved:
        raise InputError(
            f"The checkpoint of step {step} in {run.workdir} is not of a training run (it holds {', '.join(saved)}); "
            "weights to start from are given as --config.pretrained. Use another --workdir."
        )
    changed = differences(parse(saved["settings"]), run.settings)
    changed += [
        f"{name}: {saved.get(name)} -> {run.facts[name]}"
        for name in ("class_pids", "data_fingerprint")
        if saved.get(name) != run.facts[name]
    ]
    if changed:
        raise InputError(
            f"The checkpoint of step {step} in {run.workdir} is of another run:\n{join_findings(changed)}\n"
            "Use the same settings and data to continue it, or another --workdir."
        )
    return checkpoints.restore(step, like=run.initial_state), step
