"""A run that is open: data, checkpoints, log and screen, and the acts that all its processes agree upon.

    with open_session(settings, workdir) as session:
        state = train(session, session.start())

Of several processes (`icre_jax.machine.hosts`) each does the same; process 0 alone writes and talks. What one of them
finds wrong is an error of all.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from icre_jax.data.prepared import PreparedDataset
from icre_jax.data.ready import describe_data, prepare_data
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.parallel import compiled_meanwhile
from icre_jax.engine.state import PERTURBATION, TrainState, num_parameters
from icre_jax.errors import InputError, NotSavedError, join_findings
from icre_jax.evals import PROTOCOLS, VALIDATION
from icre_jax.evals.protocol import Protocol
from icre_jax.machine import hosts, memory
from icre_jax.machine.lock import lock_folder
from icre_jax.machine.screen import Screen
from icre_jax.settings import differences, flatten, from_json, resolve_paths, to_json
from icre_jax.settings.fields import Settings
from icre_jax.training.log import NoLog, RunLog, require_scores, set_aside
from icre_jax.training.run import Run, assemble, keep_galleries, require_same_run, restore, trace_start
from icre_jax.training.workdir import open_workdir, write_config


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """An open run.

    Attributes:
      run: what it is made of.
      checkpoints: of its workdir.
      log: its files; in all processes but the first, one that keeps nothing.
      screen: where progress goes; in all processes but the first a silent one.
      saved_step: step of the checkpoint that it continues from; None if it starts.
    """

    run: Run
    checkpoints: Checkpoints
    log: RunLog
    screen: Screen
    saved_step: int | None

    def start(self) -> TrainState:
        """The state to train from: that of the latest checkpoint; or the first one, which is scored and saved.

        Raises:
          InputError: as `restore`; or config.json cannot be written.
          NotSavedError: the first state could not be saved.
        """
        run = self.run
        state = hosts.everywhere(lambda: restore(run, self.checkpoints, step=self.saved_step))
        if self.saved_step is None:
            self.screen.say(_describe_start(run))
            with compiled_meanwhile(run.step, run.mesh, state, run.program.abstract_batch(run.plan.batch_size)):
                scores = self.score(state, 0)
                self._claim_workdir()
                self.save(state, scores)
            return state
        self._claim_workdir()
        if self.saved_step < run.num_steps:
            self.screen.say(f"Continuing after step {self.saved_step} of {run.num_steps}.")
        return state

    def _claim_workdir(self) -> None:
        # As late as it can be, and before the first checkpoint: a run that cannot begin (no such network to start from,
        # no memory to score it) must not keep the corrected command out of the folder.
        hosts.from_first(lambda: write_config(self.run.workdir, self.run.settings))

    def is_complete(self, state: TrainState) -> bool:
        """Whether the state is that of the last step."""
        return int(state.step) >= self.run.num_steps

    def score(self, state: TrainState, step: int) -> dict[str, float]:
        """Score the network, log it, and return the scores by name."""
        embedded = self.run.embed(state)
        epoch = step / self.run.steps_per_epoch
        return hosts.from_first(lambda: self.log.write_evaluation(step, epoch, self.run.score(embedded), self.screen))

    def save(self, state: TrainState, scores: dict[str, float] | None = None) -> None:
        """Write the state; returns when it is on disk.

        Args:
          state: to save.
          scores: of this very state by name, if it was scored.

        Raises:
          NotSavedError: the disk is full or not writable; older checkpoints are intact. Of several processes all end
            instead if one finds that out while it writes; see `icre_jax.machine.hosts.save_together`.
        """
        # The log first: no checkpoint knows of a step that the log lacks.
        hosts.everywhere(self.log.require_written)
        # Saving is a common act: a host that finds no room must not leave the others waiting for it.
        hosts.everywhere(lambda: self.checkpoints.require_space(state))
        hosts.save_together(
            lambda: self.checkpoints.save(state, self.run.facts, scores), failed=self.checkpoints.failed_last
        )
        memory.give_back()

    def try_to_save(self, state: TrainState, scores: dict[str, float] | None) -> None:
        """`save` on the way: a disk that is full now may have space by the next time, so training goes on."""
        try:
            self.save(state, scores)
        except NotSavedError as error:
            self.screen.say(f"warning: {error} Training goes on; the next save tries again. Free space until then.")


@contextlib.contextmanager
def open_session(settings: Settings, workdir: Path, console: Console | None = None) -> Iterator[Session]:
    """Open a run, or open it again; the folder is locked until the end of the block.

    Args:
      settings: what to do.
      workdir: where everything goes; a folder that holds a run of the same settings continues it.
      console: where progress goes; standard output by default.

    Raises:
      InputError: settings, data or workdir cannot be used.
    """
    dataset = settings.data.dataset
    _require_score(settings, PROTOCOLS[dataset], VALIDATION.get(dataset))
    settings = resolve_paths(settings)
    with contextlib.ExitStack() as stack:
        # A disk that is too full for what is said may have room again by the next save.
        screen = stack.enter_context(Screen(console if hosts.is_first() else Console(quiet=True), may_fail=True))
        hosts.everywhere(
            functools.partial(_require_same_settings, hosts.from_first(lambda: to_json(settings)), settings)
        )
        workdir = hosts.first_then_others(lambda: open_workdir(workdir, settings))
        hosts.from_first(lambda: stack.enter_context(lock_folder(workdir, flag="--workdir")))
        hosts.require_common_folder(workdir, flag="--workdir")
        prepared = hosts.first_then_others(lambda: prepare_data(settings.data, screen))
        hosts.everywhere(
            functools.partial(_require_same_data, hosts.from_first(lambda: prepared.fingerprint), prepared)
        )
        screen.console.print(describe_data(prepared))
        run = hosts.everywhere(lambda: assemble(settings, workdir, prepared))
        # Own images may have one direction only.
        _require_score(settings, run.evaluators[0].protocol, VALIDATION.get(dataset))
        screen.say(
            f"{settings.name}: ResNet-{settings.model.depth}, {num_parameters(run.program.abstract_state.params):,} "
            f"parameters, {run.plan.num_classes} identities, {run.steps_per_epoch} steps per epoch, batch "
            f"{run.plan.batch_size} on {jax.device_count()} x {jax.devices()[0].device_kind}"
        )
        checkpoints = stack.enter_context(
            contextlib.closing(
                Checkpoints(
                    workdir, keep_latest=settings.checkpoint.keep_latest, best_metric=settings.checkpoint.best_metric
                )
            )
        )
        saved_step = checkpoints.latest_step
        run = keep_galleries(run, checkpoints, saved_step, screen)
        if saved_step is not None:
            # Before the log is cut to where this checkpoint is.
            hosts.everywhere(lambda: require_same_run(run, checkpoints, saved_step))
        run = trace_start(run, checkpoints, saved_step, screen)
        hosts.everywhere(
            functools.partial(_require_same_start, hosts.from_first(lambda: run.facts.get("init_from")), run)
        )
        log = stack.enter_context(contextlib.closing(hosts.everywhere(lambda: _open_log(run, checkpoints, screen))))
        yield Session(run, checkpoints, log, screen, saved_step)


def _require_same_settings(theirs: str, settings: Settings) -> None:
    first, own = from_json(theirs), settings
    changed = differences(first, own)
    # A run may continue with another program, but all processes need the same one.
    programs = ((name, flatten(first)[name], flatten(own)[name]) for name in ("model.remat", "parallel"))
    changed += [f"{name}: {there} -> {here}" for name, there, here in programs if there != here]
    if changed:
        raise InputError(
            f"Process 0 was started with another config:\n{join_findings(changed)}\nStart all with the same flags."
        )


def _require_same_data(theirs: str, prepared: PreparedDataset) -> None:
    if prepared.fingerprint != theirs:
        raise InputError(
            f"The data in {prepared.folder} has fingerprint {prepared.fingerprint[:12]}, that of process 0 has "
            f"{theirs[:12]}. Give all hosts the same data set."
        )


def _require_same_start(theirs: dict[str, Any] | None, run: Run) -> None:
    ours = run.facts.get("init_from")
    if ours != theirs:
        raise InputError(
            f"The network of {run.settings.init_from} is another one than that of process 0. Give all hosts the same."
        )


def _require_score(settings: Settings, test: Protocol, validation: Protocol | None) -> None:
    """Refuse to choose the best checkpoint by a score that there will not be."""
    allowed = test.metric_names + (validation.metric_names if validation else ())
    if settings.checkpoint.best_metric not in allowed:
        raise InputError(
            f"checkpoint.best_metric is {settings.checkpoint.best_metric!r}; allowed are {', '.join(allowed)} (the "
            f"scores of data.dataset {settings.data.dataset})."
        )


def _open_log(run: Run, checkpoints: Checkpoints, screen: Screen) -> RunLog:
    """The log of the run; in all processes but the first, one that keeps nothing: a full disk there is no matter."""
    saved_step, best_step = checkpoints.latest_step, checkpoints.best_step
    if not hosts.is_first():
        return NoLog()
    if saved_step is not None:
        # The best step changes to newer ones alone, and these will be scored.
        require_scores(run.workdir, {0} if best_step is None else {0, best_step})
    elif kept := set_aside(run.workdir):
        screen.say(
            f"warning: {run.workdir / 'checkpoints'} is empty, and the log has steps of a run that was here. The log "
            f"is kept as {' and '.join(path.name for path in kept)}; training starts again before the first step."
        )
    return RunLog(run.workdir, saved_step, tensorboard=run.settings.logging.tensorboard)


def _describe_start(run: Run) -> str:
    number = run.settings.perturbation
    moved = f" Every weight is moved by a relative {PERTURBATION:.0e} (perturbation {number})." if number else ""
    return _describe_weights(run) + moved


def _describe_weights(run: Run) -> str:
    settings, origin = run.settings, run.facts.get("init_from")
    if origin is not None:
        classifier = (
            "and classifier, as the identities are the same" if origin["classifier"] else "with a new classifier"
        )
        return (
            f"The network starts from step {origin['step']} of {origin['path']} (sha256 "
            f"{origin['network_sha256'][:12]}), which learned from {origin['data']}: backbone, MPFR, SDCE and BN neck, "
            f"{classifier}."
        )
    if settings.pretrained is not None:
        return f"The backbone starts from {settings.pretrained}."
    advice = (
        ""
        if settings.data.synthetic
        else (
            " The published recipes start from ImageNet's: --config.pretrained=FILE.safetensors (docs/pretrained.md)."
        )
    )
    return f"The backbone starts from random weights.{advice}"
