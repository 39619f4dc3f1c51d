"""Everything one training run is made of, put together from its settings."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from icre_jax.data.listener import Listener
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.plan import BalancedPlan, num_batches_per_epoch
from icre_jax.data.prepared import PreparedDataset
from icre_jax.datasets import Modality
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.evaluator import Evaluator, Measure, make_evaluators
from icre_jax.engine.inherit import inherit, require_new_test_people, require_same_model
from icre_jax.engine.optimizer import learning_rates
from icre_jax.engine.parallel import local_rows, make_mesh, make_state, make_train_step
from icre_jax.engine.pretrained import overlay, start_from
from icre_jax.engine.program import Program, build_program
from icre_jax.engine.provenance import dataset_label
from icre_jax.engine.state import TrainState, perturb
from icre_jax.engine.stored import read_stored
from icre_jax.errors import InputError, join_findings
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import ProtocolResult
from icre_jax.machine import hosts
from icre_jax.settings import differences, parse
from icre_jax.settings.fields import Settings


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run.

    Attributes:
      settings: what to do.
      workdir: where everything goes.
      prepared, source, plan: the data, its training records, and which of them make up each batch.
      steps_per_epoch, num_steps: lengths.
      program: what a step computes.
      mesh: devices that share it.
      create_state: () -> state before the first step, on the devices.
      step: compiled (state, `rows` of a batch) -> (state, metrics); uses up the state.
      rows: those of each batch that this process loads; None for all.
      rates: compiled step or steps, from 0 -> learning rate of each parameter group.
      evaluators: of the test identities, and of the validation identities where the best checkpoint is chosen by these.
      facts: travel with every checkpoint.
      inherited: arrays of another network that the first state starts from, by collection; None where it is new.
    """

    settings: Settings
    workdir: Path
    prepared: PreparedDataset
    source: RecordSource
    plan: BalancedPlan
    steps_per_epoch: int
    num_steps: int
    program: Program
    mesh: Mesh
    create_state: Callable[[], TrainState]
    step: Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]]
    rows: list[int] | None
    rates: Callable[[Any], dict[str, jax.Array]]
    evaluators: tuple[Evaluator, ...]
    facts: dict[str, Any]
    inherited: dict[str, Any] | None = None

    @property
    def abstract_state(self) -> TrainState:
        """Shapes of the state, placed on the devices."""
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), self.program.abstract_state
        )

    def embed(self, state: TrainState) -> list[dict[Modality, Embedded]]:
        """The images of each evaluator, in each process; every one takes part."""
        return [evaluator.embed(state.variables) for evaluator in self.evaluators]

    def score(self, embedded: list[dict[Modality, Embedded]]) -> list[ProtocolResult]:
        """The results of all evaluators, those of the test identities first."""
        pairs = zip(self.evaluators, embedded, strict=True)
        return [result for evaluator, images in pairs for result in evaluator.score(images)]

    def batch_paths(self, batch: int) -> np.ndarray:
        """[B] str: files of the images of a batch (the first is 0), relative to the data's folder."""
        return self.source.index.path[[slot.record for slot in self.plan.batch(batch)]]


def assemble(settings: Settings, workdir: Path, prepared: PreparedDataset) -> Run:
    """Build a run; nothing is written, and nothing is put on a device.

    Raises:
      InputError: the data has no images to train on or too few identities for a batch, or the batch does not spread
        over the devices.
    """
    absent = [split for split in settings.data.train_splits if split not in prepared.index]
    if absent:
        raise InputError(
            f"{prepared.folder} holds no image for the split {', '.join(absent)}; there is none to learn from."
        )
    source = RecordSource(prepared, settings.data.train_splits)
    sampling = settings.sampling.model_dump()
    steps_per_epoch = num_batches_per_epoch(source.index, **sampling, frames_per_track=settings.data.frames_per_track)
    num_steps = steps_per_epoch * settings.schedule.num_epochs
    plan = BalancedPlan(source.index, **sampling, num_batches=num_steps, seed=settings.seed)

    program = build_program(settings, num_classes=plan.num_classes, steps_per_epoch=steps_per_epoch)
    rates = learning_rates(settings.optimizer, settings.schedule, steps_per_epoch)
    mesh = make_mesh(plan.batch_size, program.accumulate_steps)
    evaluators = make_evaluators(program.network, prepared, settings, mesh=mesh)
    return Run(
        settings=settings,
        workdir=workdir,
        prepared=prepared,
        source=source,
        plan=plan,
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        program=program,
        mesh=mesh,
        create_state=functools.partial(make_state, mesh, settings.seed, program),
        step=make_train_step(mesh, program, parallel=settings.parallel),
        rows=local_rows(mesh, plan.batch_size),
        # One program, not one for each operation.
        rates=jax.jit(lambda step: {name: rate(step) for name, rate in rates.items()}),
        evaluators=evaluators,
        facts={
            "settings": settings.model_dump(mode="json"),
            "class_pids": plan.class_pids.tolist(),
            "data_fingerprint": prepared.fingerprint,
            "data": dataset_label(prepared),
            "official_draws": evaluators[0].official_draws,
        },
    )


def keep_galleries(run: Run, checkpoints: Checkpoints, step: int | None, listener: Listener) -> Run:
    """The run with the galleries that it began with: official draws that came since then are left aside.

    Scores of two kinds of galleries do not compare, and the best checkpoint is chosen among all of them.

    Args:
      run: as assembled.
      checkpoints: of its workdir.
      step: of the checkpoint that it continues from, which knows; None for a new run.
      listener: who is told.
    """
    # Checkpoints of older versions do not say.
    if step is None or hosts.everywhere(lambda: checkpoints.read_facts(step).get("official_draws", "")) is not None:
        return run
    if run.facts["official_draws"] is None:
        return run
    listener.say(
        "This run began without the official gallery draws and goes on with those of python-random, so that its scores "
        "compare; icre_jax.evaluate scores its checkpoints with the official ones."
    )
    measure = Measure(gallery_source="python-random")
    evaluators = make_evaluators(run.program.network, run.prepared, run.settings, measure, mesh=run.mesh)
    return dataclasses.replace(run, evaluators=evaluators, facts=run.facts | {"official_draws": None})


def trace_start(run: Run, checkpoints: Checkpoints, step: int | None, listener: Listener) -> Run:
    """The run with what is known of the network that it starts from among its facts, which travel on; in all processes.

    Args:
      run: as assembled.
      checkpoints: of its workdir.
      step: of the checkpoint that it continues from, which knows; None to read the network of `settings.init_from`.
      listener: who is told how it goes.

    Raises:
      InputError: there is no such network, it does not fit, or it has learned from people of this run's test set.
    """
    place = run.settings.init_from
    if place is None:
        return run
    if step is not None:
        saved = hosts.everywhere(lambda: checkpoints.read_facts(step))
        return dataclasses.replace(run, facts=run.facts | {"init_from": saved.get("init_from")})
    stored = hosts.everywhere(lambda: read_stored(place))
    hosts.everywhere(lambda: require_same_model(stored, run.settings))
    # Its training data may have to be prepared for that.
    hosts.first_then_others(lambda: require_new_test_people(stored, run.settings, run.prepared, listener))
    same_identities = all(
        run.facts[name] == value
        for name, value in (("class_pids", stored.class_pids), ("data_fingerprint", stored.about["data_fingerprint"]))
    )
    arrays, facts = inherit(stored, run.program.abstract_state.variables, classifier=same_identities)
    origin = {"path": place, **facts}
    return dataclasses.replace(run, facts=run.facts | {"init_from": origin}, inherited=arrays)


def _start(run: Run) -> TrainState:
    """The initial state: with what it has from elsewhere, then perturbed if asked for."""
    state = _with_weights(run)
    if run.settings.perturbation == 0:
        return state
    return jax.jit(perturb, out_shardings=state.step.sharding)(state, np.int32(run.settings.perturbation))


def _with_weights(run: Run) -> TrainState:
    """New weights, with what another network or a file of pretrained weights gives."""
    state = run.create_state()
    if run.inherited is not None:
        variables = overlay(state.variables, run.inherited)
    elif run.settings.pretrained is not None:
        variables = start_from(Path(run.settings.pretrained), state.variables)
    else:
        return state
    # Copies: the step uses up the memory of the state it is given.
    copy = functools.partial(jax.device_put, variables, state.step.sharding, may_alias=False)
    return state.replace(**copy(), ema=None if state.ema is None else copy())  # type: ignore[attr-defined]


def restore(run: Run, checkpoints: Checkpoints, *, step: int | None) -> TrainState:
    """The state to continue from, or to start from.

    Args:
      run: what it must fit.
      checkpoints: of its workdir.
      step: of which checkpoint; None for the state before the first step.

    Raises:
      InputError: as `require_same_run`; or the checkpoint is damaged; or the file of pretrained weights of a new run
        does not fit its backbone.
    """
    if step is None:
        return _start(run)
    require_same_run(run, checkpoints, step)
    return checkpoints.restore(step, like=run.abstract_state)


def require_same_run(run: Run, checkpoints: Checkpoints, step: int) -> None:
    """Refuse a checkpoint of another run.

    Raises:
      InputError: no such checkpoint, or it is of other settings or other data; says which.
    """
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
    draws = saved.get("official_draws", run.facts["official_draws"])  # those of older versions do not say
    if draws != run.facts["official_draws"]:
        changed.append(f"official gallery draws, by their SHA-256: {draws} -> {run.facts['official_draws']}")
    if changed:
        raise InputError(
            f"The checkpoint of step {step} in {run.workdir} is of another run:\n{join_findings(changed)}\n"
            "Use the same settings and data to continue it, or another --workdir."
        )
